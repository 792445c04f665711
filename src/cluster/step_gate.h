// How the ranks of a replica agree where a cancelled batch ends, without waiting for each other's devices.
//
// Ranks run ahead of one another, and each is right to expect its peers' part of every step that it has
// begun. So the pool asks all of them (kCancel). Each answers from its socket's thread, at once, with the
// last step that it has begun, and begins no other until it hears the verdict: the first step that nobody has
// begun. All steps before are drawn by all, none from there on.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <optional>

namespace atelier::cluster {

class StepGate {
 public:
  static constexpr int kAllBegun = std::numeric_limits<int>::max() - 1;  // nothing is left to be held

  // The thread that draws: a batch begins (hand-outs are numbered upwards), and ends.
  void open(int64_t run);
  void close();
  // May this rank begin the step? Waits while a verdict is due. The number of steps stands for decoding.
  bool may_begin(int step);

  // The socket's thread: the last step begun of this batch, -1 for none; no other begins until stop_before().
  int hold(int64_t run);
  void stop_before(int64_t run, int step);

  // Any thread: how far the batch has come, for the heartbeat.
  int begun() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int64_t run_ = 0;  // at work, or the last one that was
  int begun_ = kAllBegun;
  // Batches to be cancelled, perhaps before they begin here; no value: the verdict is due.
  std::map<int64_t, std::optional<int>> limits_;
};

}  // namespace atelier::cluster
