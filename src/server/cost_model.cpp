#include "server/cost_model.h"

namespace atelier::server {
namespace {

constexpr size_t kMostKeys = 1000;

}  // namespace

double work_of(const request::Request& r) {
  const double pixels = static_cast<double>(r.height.value_or(0)) * r.width.value_or(0);
  const double share = r.image ? r.strength.value_or(1) : 1;
  return pixels * r.num_inference_steps.value_or(1) * share * request::branches(r);
}

void CostModel::learn(request::Requests batch, double seconds) {
  if (batch.empty() || seconds <= 0) return;
  double work = 0;
  for (const auto& r : batch) work += work_of(r);
  if (work <= 0) return;
  const double now = seconds / work;
  const std::scoped_lock lock(mutex_);
  per_unit_ = per_unit_ ? *per_unit_ + kForget * (now - *per_unit_) : now;
  if (per_unit_of_key_.size() >= kMostKeys) per_unit_of_key_.clear();
  const auto [at, is_new] = per_unit_of_key_.try_emplace(request::batch_key(batch.front()), now);
  if (!is_new) at->second += kForget * (now - at->second);
}

std::optional<double> CostModel::seconds(const request::Request& r) const {
  const std::scoped_lock lock(mutex_);
  if (!per_unit_) return std::nullopt;
  const auto at = per_unit_of_key_.find(request::batch_key(r));
  return work_of(r) * (at == per_unit_of_key_.end() ? *per_unit_ : at->second);
}

std::optional<double> CostModel::seconds_of_work(double work) const {
  const std::scoped_lock lock(mutex_);
  return per_unit_ ? std::optional(work * *per_unit_) : std::nullopt;
}

}  // namespace atelier::server
