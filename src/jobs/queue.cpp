// The shared queue of a run.
#include "jobs/queue.h"

#include <algorithm>

namespace atelier::jobs {

Queue::Queue(std::vector<std::vector<request::Item>> batches, int max_retries)
    : max_retries_(std::max(0, max_retries)) {
  for (auto& items : batches) {
    if (!items.empty()) waiting_.push_back({0, 1, std::move(items)});
  }
}

std::optional<Batch> Queue::next(int group) {
  if (is_closed_ || waiting_.empty()) return std::nullopt;
  Batch batch = std::move(waiting_.front());
  waiting_.pop_front();
  batch.id = next_id_++;
  if (batch.attempt > 1) retries_ += static_cast<int64_t>(batch.items.size());
  lent_[batch.id] = {group, batch};
  return batch;
}

std::optional<Batch> Queue::take(int group) {
  const std::scoped_lock lock(mutex_);
  return next(group);
}

std::optional<Batch> Queue::wait_take(int group) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return is_closed_ || !waiting_.empty() || lent_.empty(); });
  return next(group);
}

void Queue::item_done(int64_t batch, const std::string& name) {
  const std::scoped_lock lock(mutex_);
  const auto lent = lent_.find(batch);
  if (lent == lent_.end()) return;
  finished_ += static_cast<int64_t>(
      std::erase_if(lent->second.batch.items, [&](const request::Item& i) { return i.name == name; }));
}

void Queue::done(int64_t batch) {
  const std::scoped_lock lock(mutex_);
  const auto lent = lent_.find(batch);
  if (lent == lent_.end()) return;
  finished_ += static_cast<int64_t>(lent->second.batch.items.size());
  lent_.erase(lent);
  changed_.notify_all();
}

void Queue::settle(std::map<int64_t, Lent>::iterator lent, const std::string& reason) {
  Batch batch = std::move(lent->second.batch);
  lent_.erase(lent);
  // from the back, so that the front keeps the order
  for (auto item = batch.items.rbegin(); item != batch.items.rend(); ++item) {
    if (batch.attempt > max_retries_) {
      failures_.push_back({std::move(*item), reason, batch.attempt});
    } else {
      waiting_.push_front({0, batch.attempt + 1, {std::move(*item)}});
    }
  }
}

void Queue::failed(int64_t batch, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  const auto lent = lent_.find(batch);
  if (lent != lent_.end()) settle(lent, reason);
  changed_.notify_all();
}

void Queue::lost(int group, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  for (auto lent = lent_.begin(); lent != lent_.end();) {
    const auto here = lent++;
    if (here->second.group == group) settle(here, reason);
  }
  changed_.notify_all();
}

void Queue::give_up(int64_t batch, const std::string& name, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  const auto lent = lent_.find(batch);
  if (lent == lent_.end()) return;
  std::erase_if(lent->second.batch.items, [&](request::Item& item) {
    if (item.name != name) return false;
    failures_.push_back({item, reason, lent->second.batch.attempt});
    return true;
  });
}

void Queue::close() {
  const std::scoped_lock lock(mutex_);
  is_closed_ = true;
  changed_.notify_all();
}

bool Queue::is_finished() const {
  const std::scoped_lock lock(mutex_);
  return waiting_.empty() && lent_.empty();
}

int64_t Queue::pending() const {
  const std::scoped_lock lock(mutex_);
  size_t items = 0;
  for (const Batch& batch : waiting_) items += batch.items.size();
  for (const auto& [id, lent] : lent_) items += lent.batch.items.size();
  return static_cast<int64_t>(items);
}

int64_t Queue::finished() const {
  const std::scoped_lock lock(mutex_);
  return finished_;
}

int64_t Queue::retries() const {
  const std::scoped_lock lock(mutex_);
  return retries_;
}

std::vector<Failure> Queue::failures() const {
  const std::scoped_lock lock(mutex_);
  return failures_;
}

}  // namespace atelier::jobs
