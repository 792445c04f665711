#include "app/run/drawn.h"

#include <algorithm>
#include <functional>

namespace atelier::app {
namespace {

uint64_t hash_of(std::string_view name) {
  return std::hash<std::string_view>()(name);
}

}  // namespace

void DrawnNames::expect(std::string_view name) {
  names_.push_back(hash_of(name));
  is_sorted_ = false;
}

size_t DrawnNames::find(std::string_view name) const {
  if (!is_sorted_) std::sort(names_.begin(), names_.end()), is_sorted_ = true;
  const uint64_t hash = hash_of(name);
  const auto at = std::lower_bound(names_.begin(), names_.end(), hash);
  return at != names_.end() && *at == hash ? static_cast<size_t>(at - names_.begin()) : names_.size();
}

int DrawnNames::add(std::string_view name) {
  times_.resize(names_.size());
  const size_t at = find(name);
  if (at == names_.size()) return 0;
  count_ += times_[at] == 0;
  times_[at] = static_cast<uint16_t>(std::min(times_[at] + 1, UINT16_MAX));
  return times_[at];
}

bool DrawnNames::has(std::string_view name) const {
  const size_t at = find(name);
  return at < times_.size() && times_[at] > 0;
}

}  // namespace atelier::app
