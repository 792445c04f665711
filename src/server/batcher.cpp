#include "server/batcher.h"

#include <algorithm>
#include <string_view>

namespace atelier::server {

void Batcher::add(WaitingPicture picture) {
  std::string key = request::batch_key(picture.request);
  waiting_.push_back({std::move(picture), std::move(key), ++last_});
}

void Batcher::add_first(WaitingPicture picture) {
  std::string key = request::batch_key(picture.request);
  waiting_.push_back({std::move(picture), std::move(key), --first_});
}

int Batcher::remove(const std::string& job) {
  return static_cast<int>(std::erase_if(waiting_, [&](const QueueEntry& e) { return e.picture.job == job; }));
}

double Batcher::urgency(const QueueEntry& entry, double now) {
  return entry.picture.priority + (now - entry.picture.since) / kAging;
}

// Those of one key, in their order, that make a batch. drawn: jobs of which something is drawn now.
std::set<const Batcher::QueueEntry*> Batcher::together(const std::vector<QueueEntry*>& entries,
                                                       const std::set<std::string>& drawn) const {
  std::set<const QueueEntry*> taken;
  std::set<std::string> jobs = drawn;
  for (const QueueEntry* entry : entries) {
    if (std::ssize(taken) >= limits_.most) break;
    const bool is_new = jobs.insert(entry->picture.job).second;
    if (is_new && limits_.jobs_at_once > 0 && std::ssize(jobs) > limits_.jobs_at_once) {
      jobs.erase(entry->picture.job);
      continue;
    }
    taken.insert(entry);
  }
  return taken;
}

std::vector<WaitingPicture> Batcher::next(double now, const std::vector<std::string>& running) {
  const std::set<std::string> drawn(running.begin(), running.end());
  const bool is_full = limits_.jobs_at_once > 0 && std::ssize(drawn) >= limits_.jobs_at_once;
  std::vector<QueueEntry*> order;
  for (auto& entry : waiting_) {
    if (!is_full || drawn.contains(entry.picture.job)) order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [&](const QueueEntry* a, const QueueEntry* b) {
    const double left = urgency(*a, now), right = urgency(*b, now);
    return left != right ? left > right : a->order < b->order;
  });
  std::map<std::string_view, std::vector<QueueEntry*>> by_key;
  for (QueueEntry* entry : order) by_key[entry->key].push_back(entry);
  // what is drawn beside a picture follows from its key: one look at each
  std::map<std::string_view, std::set<const QueueEntry*>> fitting;
  std::set<const QueueEntry*> taken;
  for (const QueueEntry* head : order) {
    const auto [fits, is_new] = fitting.try_emplace(head->key);
    if (is_new) fits->second = together(by_key.at(head->key), drawn);
    const bool is_ripe =
        std::ssize(fits->second) >= limits_.most || now - head->picture.since >= limits_.wait_s;
    if (!is_ripe || fits->second.empty()) continue;
    taken = std::move(fits->second);
    break;
  }
  std::vector<WaitingPicture> out;
  std::set<int64_t> orders;  // entries move while others are erased
  for (const QueueEntry* entry : order) {
    if (!taken.contains(entry)) continue;
    out.push_back(entry->picture);
    orders.insert(entry->order);
  }
  std::erase_if(waiting_, [&](const QueueEntry& e) { return orders.contains(e.order); });
  return out;
}

std::optional<double> Batcher::ripe_at(double now) const {
  std::optional<double> least;
  for (const auto& entry : waiting_) {
    const double at = entry.picture.since + limits_.wait_s;
    if (at > now) least = std::min(least.value_or(at), at);
  }
  return least;
}

std::vector<BatchWork> Batcher::before(int priority, double now) const {
  std::map<std::string_view, std::vector<const QueueEntry*>> by_key;
  for (const auto& entry : waiting_) {
    if (urgency(entry, now) >= priority) by_key[entry.key].push_back(&entry);
  }
  std::vector<BatchWork> out;
  for (const auto& [key, entries] : by_key) {
    for (size_t i = 0; i < entries.size(); ++i) add_next(out, i, limits_.most, entries[i]->picture.request);
  }
  return out;
}

}  // namespace atelier::server
