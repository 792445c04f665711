#include "server/cost_model.h"

#include <algorithm>
#include <cmath>

namespace atelier::server {
namespace {

constexpr size_t kMostPoints = 1000;
constexpr double kForget = 0.2;         // weight of the newest batch
constexpr double kFramesPerLatent = 4;  // of a video, after its first
constexpr const char* kSteps = "denoise";

}  // namespace

BatchWork::BatchWork(request::Requests batch) {
  for (const auto& r : batch) add(r);
}

void BatchWork::add(const request::Request& r) {
  const double share = r.image ? r.strength.value_or(1) : 1;
  const double frames = 1 + (r.num_frames.value_or(1) - 1) / kFramesPerLatent;
  steps = std::max(steps, r.num_inference_steps.value_or(1) * share);
  work += static_cast<double>(r.height.value_or(0)) * r.width.value_or(0) * request::branches(r) * frames;
}

void add_next(std::vector<BatchWork>& batches, size_t number, int most, const request::Request& picture) {
  if (number % static_cast<size_t>(std::max(1, most)) == 0) batches.emplace_back();
  batches.back().add(picture);
}

void CostCurve::learn(double work, double seconds) {
  if (seconds_.size() >= kMostPoints) seconds_.clear();
  const auto [at, is_new] = seconds_.try_emplace(work, seconds);
  if (!is_new) at->second += kForget * (seconds - at->second);
}

std::optional<double> CostCurve::likely(double work) const {
  if (seconds_.empty()) return std::nullopt;
  const auto above = seconds_.lower_bound(work);
  if (above != seconds_.end() && above->first == work) return above->second;
  const auto& nearest = above == seconds_.begin() ? *above : *std::prev(above);
  const double proportional = nearest.second * work / nearest.first;
  if (seconds_.size() == 1) return proportional;
  // the two neighbours, or the two that are next
  auto second = above == seconds_.end()     ? std::prev(above)
                : above == seconds_.begin() ? std::next(above)
                                            : above;
  const auto first = std::prev(second);
  const double slope = (second->second - first->second) / (second->first - first->first);
  const double on_line = first->second + slope * (work - first->first);
  if (above == seconds_.begin()) return std::clamp(on_line, proportional, nearest.second);
  return above == seconds_.end() ? std::max(on_line, nearest.second) : on_line;
}

std::optional<double> CostCurve::least(double work) const {
  if (seconds_.empty()) return std::nullopt;
  const auto above = seconds_.upper_bound(work);
  if (above == seconds_.begin()) return above->second * work / above->first;
  const auto below = std::prev(above);
  const double rooted = below->second * std::sqrt(work / below->first);
  return above == seconds_.end() ? rooted : std::min(rooted, std::max(below->second, above->second));
}

void CostModel::learn(request::Requests batch, const std::map<std::string, double>& phases) {
  const BatchWork work(batch);
  double steps = 0, rest = 0;
  for (const auto& [phase, seconds] : phases) (phase == kSteps ? steps : rest) += seconds;
  if (work.work <= 0 || work.steps <= 0 || steps + rest <= 0) return;
  const std::scoped_lock lock(mutex_);
  step_.learn(work.work, steps / work.steps);
  rest_.learn(work.work, rest);
}

std::optional<double> CostModel::seconds(const BatchWork& batch) const {
  const std::scoped_lock lock(mutex_);
  const auto step = step_.likely(batch.work), rest = rest_.likely(batch.work);
  return step ? std::optional(batch.steps * *step + *rest) : std::nullopt;
}

std::optional<double> CostModel::least_seconds(const BatchWork& batch) const {
  const std::scoped_lock lock(mutex_);
  const auto step = step_.least(batch.work), rest = rest_.least(batch.work);
  return step ? std::optional(batch.steps * *step + *rest) : std::nullopt;
}

}  // namespace atelier::server
