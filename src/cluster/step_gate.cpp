#include "cluster/step_gate.h"

#include <algorithm>

namespace atelier::cluster {

void StepGate::open(int64_t run) {
  const std::scoped_lock lock(mutex_);
  run_ = run;
  begun_ = -1;
  limits_.erase(limits_.begin(), limits_.lower_bound(run));
}

void StepGate::close() {
  const std::scoped_lock lock(mutex_);
  begun_ = kAllBegun;
}

bool StepGate::may_begin(int step) {
  std::unique_lock lock(mutex_);
  const auto limit = [&] { return limits_.find(run_); };
  changed_.wait(lock, [&] { return limit() == limits_.end() || limit()->second; });
  if (limit() != limits_.end() && step >= *limit()->second) return false;
  begun_ = std::max(begun_, step);
  return true;
}

int StepGate::hold(int64_t run) {
  const std::scoped_lock lock(mutex_);
  if (run < run_ || (run == run_ && begun_ == kAllBegun)) return kAllBegun;
  limits_.try_emplace(run);
  return run == run_ ? begun_ : -1;
}

void StepGate::stop_before(int64_t run, int step) {
  const std::scoped_lock lock(mutex_);
  if (run >= run_) limits_[run] = step;
  changed_.notify_all();
}

int StepGate::begun() const {
  const std::scoped_lock lock(mutex_);
  return begun_;
}

}  // namespace atelier::cluster
