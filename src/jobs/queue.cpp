// The shared queue of a run.
#include "jobs/queue.h"

#include <algorithm>

namespace atelier::jobs {

Queue::Queue(std::vector<std::vector<request::Request>> batches, int max_retries)
    : max_retries_(std::max(0, max_retries)) {
  for (auto& requests : batches) {
    if (!requests.empty()) waiting_.push_back({0, 1, std::move(requests)});
  }
}

std::optional<Batch> Queue::next(int group) {
  if (waiting_.empty()) return std::nullopt;
  Batch batch = std::move(waiting_.front());
  waiting_.pop_front();
  batch.id = next_id_++;
  if (batch.attempt > 1) retries_ += static_cast<int64_t>(batch.requests.size());
  in_flight_[batch.id] = {group, batch};
  return batch;
}

std::optional<Batch> Queue::take(int group) {
  const std::scoped_lock lock(mutex_);
  return next(group);
}

void Queue::request_done(int64_t batch, const std::string& name) {
  const std::scoped_lock lock(mutex_);
  const auto entry = in_flight_.find(batch);
  if (entry == in_flight_.end()) return;
  finished_ += static_cast<int64_t>(
      std::erase_if(entry->second.batch.requests, [&](const request::Request& i) { return i.name == name; }));
}

void Queue::done(int64_t batch) {
  const std::scoped_lock lock(mutex_);
  const auto entry = in_flight_.find(batch);
  if (entry == in_flight_.end()) return;
  finished_ += static_cast<int64_t>(entry->second.batch.requests.size());
  in_flight_.erase(entry);
}

void Queue::settle(std::map<int64_t, InFlight>::iterator entry, const std::string& reason) {
  Batch batch = std::move(entry->second.batch);
  in_flight_.erase(entry);
  // from the back, so that the front keeps the order
  for (auto request = batch.requests.rbegin(); request != batch.requests.rend(); ++request) {
    if (batch.attempt > max_retries_) {
      failures_.push_back({std::move(*request), reason, batch.attempt});
    } else {
      waiting_.push_front({0, batch.attempt + 1, {std::move(*request)}});
    }
  }
}

void Queue::failed(int64_t batch, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  const auto entry = in_flight_.find(batch);
  if (entry != in_flight_.end()) settle(entry, reason);
}

void Queue::give_up(int64_t batch, const std::string& name, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  const auto entry = in_flight_.find(batch);
  if (entry == in_flight_.end()) return;
  std::erase_if(entry->second.batch.requests, [&](request::Request& request) {
    if (request.name != name) return false;
    failures_.push_back({request, reason, entry->second.batch.attempt});
    return true;
  });
}

bool Queue::is_finished() const {
  const std::scoped_lock lock(mutex_);
  return waiting_.empty() && in_flight_.empty();
}

int64_t Queue::pending() const {
  const std::scoped_lock lock(mutex_);
  size_t requests = 0;
  for (const Batch& batch : waiting_) requests += batch.requests.size();
  for (const auto& [id, entry] : in_flight_) requests += entry.batch.requests.size();
  return static_cast<int64_t>(requests);
}

int64_t Queue::finished() const {
  const std::scoped_lock lock(mutex_);
  return finished_;
}

int64_t Queue::retries() const {
  const std::scoped_lock lock(mutex_);
  return retries_;
}

std::vector<FailedItem> Queue::failures() const {
  const std::scoped_lock lock(mutex_);
  return failures_;
}

}  // namespace atelier::jobs
