// Ctrl-C: the first one asks the run to stop, the second one ends the process at once. Before anything is
// drawn, the first one ends it too, a second later.
#pragma once
#include <atomic>
#include <stop_token>
#include <thread>

namespace atelier::app {

// SIGINT, SIGTERM and SIGHUP (unless it is ignored) while it lives; one at a time per process. Child
// processes that are started meanwhile have the system's own handling again.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  std::stop_token token() const { return stop_.get_token(); }
  // From here on the run looks after its own end.
  void begin_drawing() const { is_drawing_ = true; }

 private:
  void leave_unless_drawing();

  mutable std::atomic<bool> is_drawing_ = false;
  std::stop_source stop_;
  int pipe_[2] = {-1, -1};
  std::thread reader_;
};

}  // namespace atelier::app
