// What becomes of a batch that was not drawn.
#pragma once
#include <set>
#include <string>

#include "base/error.h"
#include "jobs/queue.h"

namespace atelier::cluster {

class RetryPolicy {
 public:
  // memory_tries: how often a picture that does not fit in memory is tried with all memory free.
  RetryPolicy(jobs::Queue& queue, int memory_tries) : queue_(queue), memory_tries_(memory_tries) {}

  // Hands the batch back to be tried again, or gives its pictures up where that cannot help.
  void on_failure(const jobs::Batch& batch, Kind kind, const std::string& reason);
  // A full disk or a vanished output folder ends the run: the next picture would fare no better.
  static bool ends_run(Kind kind_of_write_error) {
    return kind_of_write_error == Kind::kCapacity || kind_of_write_error == Kind::kUsage;
  }

 private:
  bool is_hopeless(const jobs::Batch& batch, Kind kind);

  jobs::Queue& queue_;
  const int memory_tries_;
  std::multiset<std::string> did_not_fit_;  // names
};

}  // namespace atelier::cluster
