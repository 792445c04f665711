// Which pictures wait, and which are drawn together next. Pure: times come in, batches go out.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "request/request.h"
#include "server/cost_model.h"

namespace atelier::server {

struct WaitingPicture {
  std::string job;
  int index = 0;     // which of the job's pictures
  int priority = 0;  // higher ones first; who waits gains one for every kAging seconds
  double since = 0;  // s
  request::Request request;
};

struct BatchLimits {
  int most = 1;          // pictures of one batch
  double wait_s = 0;     // how long a picture may wait for others that fit
  int jobs_at_once = 0;  // 0: any number
};

class Batcher {
 public:
  explicit Batcher(BatchLimits limits) : limits_(limits) {}

  static constexpr double kAging = 30;  // s

  void add(WaitingPicture picture);
  void add_first(WaitingPicture picture);  // in front of its equals: it was drawn in vain
  // All that wait of a job; how many they were.
  int remove(const std::string& job);
  // The most urgent picture with all that can be drawn beside it. None: nothing waits, or what does may still
  // wait for others. running: jobs that are drawn now.
  std::vector<WaitingPicture> next(double now, const std::vector<std::string>& running = {});
  // When next() may give what it does not give at `now`; none: never by itself.
  std::optional<double> ripe_at(double now) const;

  size_t size() const { return waiting_.size(); }
  // The batches that are drawn before a picture of this priority that comes now, as far as is known.
  std::vector<BatchWork> before(int priority, double now) const;

 private:
  struct QueueEntry {
    WaitingPicture picture;
    std::string key;
    int64_t order = 0;  // of arrival
  };
  static double urgency(const QueueEntry& entry, double now);
  std::set<const QueueEntry*> together(const std::vector<QueueEntry*>& entries,
                                       const std::set<std::string>& drawn) const;

  const BatchLimits limits_;
  std::vector<QueueEntry> waiting_;
  int64_t last_ = 0, first_ = 0;
};

}  // namespace atelier::server
