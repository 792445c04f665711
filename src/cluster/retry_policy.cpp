#include "cluster/retry_policy.h"

#include <algorithm>
#include <utility>

namespace atelier::cluster {
namespace {

constexpr int kHopelessRequests = 3;  // in a row, each failing in all its tries

std::string times(int n) {
  return n == 1 ? "once" : str(n, " times in a row");
}

}  // namespace

RetryPolicy::RetryPolicy(int groups, RetryLimits limits)
    : limits_(std::move(limits)), groups_(static_cast<size_t>(groups)) {}

const WorkerFailure& RetryPolicy::cause_of(std::span<const WorkerFailure> failures) {
  return *std::max_element(failures.begin(), failures.end(), [](const auto& a, const auto& b) {
    return std::pair(a.is_final, a.severity) < std::pair(b.is_final, b.severity);
  });
}

bool RetryPolicy::ends_pool(std::optional<Kind> kind) {
  return kind == Kind::kCapacity || kind == Kind::kUsage;
}

RetryPolicy::Fate RetryPolicy::on_batch_failed(size_t requests, std::optional<Kind> kind,
                                               Attempts& attempts) const {
  if (kind == Kind::kUsage || kind == Kind::kCheckpoint) return Fate::kGiveUp;
  if (kind == Kind::kItem || kind == Kind::kCapacity) {
    if (requests > 1) return Fate::kRetry;  // one of them, or all together: alone they show it
    if (kind == Kind::kItem || ++attempts.out_of_memory >= limits_.memory_tries) return Fate::kGiveUp;
  }
  return attempts.begun > limits_.max_retries ? Fate::kGiveUp : Fate::kRetry;
}

RetryPolicy::Decision RetryPolicy::on_group_failed(int group, const WorkerFailure& cause, Blame blame) {
  auto& streak = groups_[static_cast<size_t>(group)];
  const std::string what = str(cause.who, " ", cause.reason);
  if (cause.is_final) {
    return give_up(streak, what + "; start the run again, finished pictures are kept");
  }
  if (cause.is_loading) {
    const auto kind = cause.kind.value_or(Kind::kPeer);
    const bool is_verdict = kind == Kind::kCheckpoint || kind == Kind::kUsage || kind == Kind::kCapacity;
    if (is_verdict && !has_loaded_) return {Action::kEnd, kind, what};  // every start would say the same
    // What has loaded before meets memory that another process holds, or a disk that is away.
    using enum WorkerFailure::Severity;
    const bool is_accident = cause.severity == kGone || cause.severity == kSilent || is_verdict;
    if (++streak.failed_starts > (is_accident ? limits_.max_retries : 1)) {
      return give_up(streak, str(cause.who, " did not load, ", times(streak.failed_starts), ": ",
                                 cause.reason, limits_.start_advice));
    }
  } else if (blame == Blame::kNothing && ++streak.without_work > limits_.max_retries) {
    return give_up(streak,
                   str(cause.who, " ended without work, ", times(streak.without_work), ": ", cause.reason));
  }
  if (++streak.restarts > kHopelessRequests * (limits_.max_retries + 1)) {
    return give_up(streak, str("the workers were started ", streak.restarts,
                               " times without a picture, last because ", what));
  }
  return {Action::kRestart, Kind::kPeer, what};
}

RetryPolicy::Decision RetryPolicy::give_up(Streak& streak, std::string reason) {
  streak.is_abandoned = true;
  const bool is_last =
      std::all_of(groups_.begin(), groups_.end(), [](const Streak& s) { return s.is_abandoned; });
  return {is_last ? Action::kEnd : Action::kAbandon, Kind::kPeer, std::move(reason)};
}

void RetryPolicy::on_ready() {
  has_loaded_ = true;
}

void RetryPolicy::on_artifact(int group) {
  groups_[static_cast<size_t>(group)] = {};
}

}  // namespace atelier::cluster
