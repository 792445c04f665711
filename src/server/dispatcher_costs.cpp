// What jobs will take, and which are taken.
#include <algorithm>
#include <cmath>

#include "server/api_error.h"
#include "server/dispatcher.h"

namespace atelier::server {
namespace {

constexpr int kLongestRetry = 120;  // s
constexpr int kMostProbes = 4;      // pictures that only show that the server draws, of one key at once

}  // namespace

// A deadline refuses only what is surely too long.
void Dispatcher::admit(const JobRecord& record) const {
  const auto refuse = [&](const std::string& code, const std::string& message) {
    ApiError error(429, code, message);
    const double wait = predicted_wait(record.priority, &CostModel::seconds);
    error.retry_after_s = static_cast<int>(std::clamp(std::ceil(wait / 2), 1.0, double{kLongestRetry}));
    throw error;
  };
  const bool is_probe = record.kind == "health";  // asked of a busy server above all
  const auto of_owner = std::count_if(live_.begin(), live_.end(), [&](const auto& job) {
    const auto& other = job.second->record;
    return other.owner == record.owner && !is_final(other.state) && (other.kind == "health") == is_probe;
  });
  if (is_probe) {
    if (of_owner >= kMostProbes) refuse("too_many_jobs", str(kMostProbes, " such probes are open already"));
    return;
  }
  const auto waiting = std::count_if(live_.begin(), live_.end(), [](const auto& job) {
    return job.second->record.state == JobState::kQueued;
  });
  if (waiting >= options_.max_queue)
    refuse("queue_full", str("max_queue ", options_.max_queue, ": so many jobs wait already"));
  if (of_owner >= options_.max_per_owner)
    refuse("too_many_jobs",
           str("max_per_key ", options_.max_per_owner, ": so many jobs of this key are open already"));
  const auto needs = seconds_of(record.requests, &CostModel::least_seconds);
  if (!needs || record.timeout <= 0) return;
  if (*needs > record.timeout)
    throw ApiError(400, "deadline",
                   str("the pictures take ", std::ceil(*needs), " s or more, but timeout leaves ",
                       std::floor(record.timeout), " s"),
                   "timeout");
  if (predicted_wait(record.priority, &CostModel::least_seconds) + *needs > record.timeout)
    refuse("deadline", "what waits already takes longer than timeout allows");
}

namespace {

// Those that one job's pictures become, as far as is known.
std::vector<BatchWork> batches_of(const std::vector<request::Request>& pictures, int most) {
  std::vector<BatchWork> out;
  for (size_t i = 0; i < pictures.size(); ++i) add_next(out, i, most, pictures[i]);
  return out;
}

}  // namespace

// Of pictures that have all groups for themselves; none before anything was drawn. Groups take turns at
// their batches, and no two share one: the first has the most to draw.
std::optional<double> Dispatcher::seconds_of(const std::vector<request::Request>& pictures,
                                             Predict predict) const {
  const auto batches = batches_of(pictures, options_.batch.most);
  double sum = 0;
  for (size_t i = 0; i < batches.size(); i += static_cast<size_t>(live_groups())) {
    const auto seconds = (costs_.*predict)(batches[i]);
    if (!seconds) return std::nullopt;
    sum += *seconds;
  }
  return sum;
}

// Those that draw, or will again.
int Dispatcher::live_groups() const {
  return std::max(1, groups_ - static_cast<int>(std::ssize(lost_groups_)));
}

// Until a group is free for a job of this priority: groups take in turn what is before it.
double Dispatcher::predicted_wait(int priority, Predict predict) const {
  std::vector<double> free(static_cast<size_t>(live_groups()), 0);
  const auto take = [&](const BatchWork& batch, double share) {
    *std::min_element(free.begin(), free.end()) += share * (costs_.*predict)(batch).value_or(0);
  };
  for (const auto& [id, batch] : open_) {
    if (batch.is_generated) continue;
    BatchWork work;
    for (const auto& picture : batch.pictures) work.add(picture.request);
    take(work, batch.steps > 0 ? 1 - static_cast<double>(batch.step) / batch.steps : 1);
  }
  for (const auto& batch : batcher_.before(priority, steady_seconds())) take(batch, 1);
  for (const auto& [id, job] : live_) {  // and what is on its way to the disk
    if (job->is_queued || is_final(job->record.state) || job->record.priority < priority) continue;
    for (const auto& batch : batches_of(job->record.requests, options_.batch.most)) take(batch, 1);
  }
  return *std::min_element(free.begin(), free.end());
}

std::optional<double> Dispatcher::seconds_left(const LiveJob& job) const {
  std::vector<request::Request> left;
  for (size_t i = 0; i < job.pictures.size(); ++i) {
    if (!job.pictures[i]) left.push_back(job.record.requests[i]);
  }
  auto seconds = seconds_of(left, &CostModel::seconds);
  if (!seconds) return std::nullopt;
  for (const auto& [number, batch] : open_) {
    BatchWork own;
    for (const auto& picture : batch.pictures) {
      if (picture.job == job.record.id) own.add(picture.request);
    }
    if (own.work > 0 && batch.steps > 0)
      *seconds -= costs_.seconds(own).value_or(0) * batch.step / batch.steps;
  }
  return std::max(0.0, *seconds);
}

}  // namespace atelier::server
