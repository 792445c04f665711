// Hands batches to the data-parallel groups, each when it is free, and counts retries. Thread-safe.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "request/request.h"

namespace atelier::jobs {

struct Batch {
  int64_t id = 0;  // of this hand-out; a retry has another
  int attempt = 1;
  std::vector<request::Request> requests;
};

struct FailedItem {
  request::Request request;
  std::string reason;
  int attempts = 0;
};

class Queue {
 public:
  // A request is tried at most 1 + max_retries times.
  Queue(std::vector<std::vector<request::Request>> batches, int max_retries);

  // The next batch for this group; none if none waits just now. A group may hold several.
  std::optional<Batch> take(int group);

  // One picture of a batch is written: it will not be drawn again if the rest of its batch fails.
  void request_done(int64_t batch, const std::string& name);
  // The whole batch is written.
  void done(int64_t batch);
  // What is left of the batch goes back to the front, each request alone, so that one bad request cannot take its
  // neighbours with it; requests out of tries become failures. Ids that are not handed out (any more) are
  // ignored.
  void failed(int64_t batch, const std::string& reason);
  // An item that no retry would help.
  void give_up(int64_t batch, const std::string& name, const std::string& reason);

  bool is_finished() const;  // nothing waits and nothing is handed out
  int64_t pending() const;   // requests that wait or are handed out
  int64_t finished() const;  // requests written
  int64_t retries() const;   // requests handed out again so far
  std::vector<FailedItem> failures() const;

 private:
  struct InFlight {
    int group = 0;
    Batch batch;
  };
  std::optional<Batch> next(int group);
  void settle(std::map<int64_t, InFlight>::iterator entry, const std::string& reason);

  const int max_retries_;
  mutable std::mutex mutex_;
  std::deque<Batch> waiting_;
  std::map<int64_t, InFlight> in_flight_;
  std::vector<FailedItem> failures_;
  int64_t next_id_ = 1, finished_ = 0, retries_ = 0;
};

}  // namespace atelier::jobs
