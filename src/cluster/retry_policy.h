// What is tried again and what is given up. Pure: what happened in, what to do out; no clock, no
// process, no I/O.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace atelier::cluster {

// Why a worker, and with it its whole group, has to be replaced.
struct WorkerFailure {
  // Of the failures of one group the most severe is the cause; the others follow from it.
  enum class Severity { kPeerLost, kLate, kSilent, kFailed, kGone };
  int rank = 0;
  std::string who;  // the rank, its group and its process, for people
  Severity severity = Severity::kGone;
  std::optional<Kind> kind;  // of the Error that the worker reported; none: anything else
  std::string reason;
  int64_t run = 0;          // the hand-out that it worked on; 0: not known
  bool is_final = false;    // its process cannot be started again
  bool is_loading = false;  // it was not ready yet
};

// How often something was tried: a request, or a batch of them.
struct Attempts {
  int begun = 0;
  int out_of_memory = 0;  // of them, alone and with all memory free
};

struct RetryLimits {
  int max_retries = 3;
  int memory_tries = 1;  // of one request; where several ranks draw it, memory is free only after a restart
  std::string start_advice;  // what helps workers that do not load
};

class RetryPolicy {
 public:
  enum class Fate { kRetry, kGiveUp };
  enum class Action { kRestart, kAbandon, kEnd };  // this group; this group; the pool
  struct Decision {
    Action action = Action::kRestart;
    Kind kind = Kind::kPeer;  // of the Error that ends the pool
    std::string reason;
  };

  RetryPolicy(int groups, RetryLimits limits);

  static const WorkerFailure& cause_of(std::span<const WorkerFailure> failures);
  // A full disk or a vanished output folder: the next artifact would fare no better.
  static bool ends_pool(std::optional<Kind> kind_of_write_error);

  // A batch of so many requests was not drawn. kRetry: each of them alone, so that a bad one cannot take its
  // neighbours with it.
  Fate on_batch_failed(size_t requests, std::optional<Kind> kind, Attempts& attempts) const;
  // The group's workers have ended. kEnd when no other start can help, or no other group is left.
  enum class Blame { kBatch, kNothing };  // is there work that may have broken them?
  Decision on_group_failed(int group, const WorkerFailure& cause, Blame blame);
  // A group has loaded: so the model, its files and the settings are right.
  void on_ready();
  // Whatever was wrong with the group, it works.
  void on_artifact(int group);

 private:
  // Failures since the group's last artifact. Each counts what nothing else ends: a start that fails has no
  // request to give up, nor has a worker that dies idle; and requests that give up one after the other, each
  // after its tries, would restart the workers for ever.
  struct Streak {
    int failed_starts = 0, without_work = 0, restarts = 0;
    bool is_abandoned = false;
  };
  Decision give_up(Streak& streak, std::string reason);

  const RetryLimits limits_;
  std::vector<Streak> groups_;
  bool has_loaded_ = false;  // any of them, ever
};

}  // namespace atelier::cluster
