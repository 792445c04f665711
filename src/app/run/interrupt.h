// Ctrl-C: the first one asks the run to stop, the second one ends the process at once.
#pragma once
#include <stop_token>
#include <thread>

namespace atelier::app {

// SIGINT and SIGTERM while it lives; one at a time per process. Child processes that are started meanwhile
// have the system's own handling again.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  std::stop_token token() const { return stop_.get_token(); }

 private:
  std::stop_source stop_;
  int pipe_[2] = {-1, -1};
  std::thread reader_;
};

}  // namespace atelier::app
