// Signals arrive in a handler, which may do next to nothing: it writes a byte to a pipe that a thread reads.
#include "app/run/interrupt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace atelier::app {
namespace {

std::atomic<int> wake_fd{-1};
std::atomic<int> signals{0};

void on_signal(int) {
  const int saved = errno;
  if (signals.fetch_add(1) > 0) ::_exit(130);
  const char byte = 's';
  if (::write(wake_fd.load(), &byte, 1) < 0) ::_exit(130);
  errno = saved;
}

void handle(void (*handler)(int)) {
  struct sigaction action {
  }, before{};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int s : {SIGINT, SIGTERM, SIGHUP}) {
    // what nohup has switched off stays off
    if (::sigaction(s, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    ::sigaction(s, &action, nullptr);
  }
}

constexpr int kPatience = 1000;  // ms for a command that is not drawing yet to end by itself

}  // namespace

Interrupt::Interrupt() {
  if (::pipe2(pipe_, O_CLOEXEC) != 0)
    throw Error(Kind::kCapacity, str("no pipe can be opened: ", std::strerror(errno)));
  signals = 0;
  wake_fd = pipe_[1];
  reader_ = std::thread([this] {
    char byte = 0;
    if (::read(pipe_[0], &byte, 1) != 1 || byte != 's') return;
    if (is_drawing_)
      std::fputs("\ninterrupted: ending the workers; press Ctrl-C again to leave at once\n", stderr);
    stop_.request_stop();
    leave_unless_drawing();
  });
  handle(on_signal);
}

// Reading a large file, or looking for a layout, asks nobody whether to stop; there is nothing to lose yet.
void Interrupt::leave_unless_drawing() {
  pollfd end{pipe_[0], POLLIN, 0};
  if (is_drawing_ || ::poll(&end, 1, kPatience) != 0 || is_drawing_) return;
  std::fputs("error: interrupted before anything was drawn\n", stderr);
  ::_exit(exit_code(Kind::kInterrupted));
}

Interrupt::~Interrupt() {
  handle(SIG_DFL);
  wake_fd = -1;
  const char byte = 'e';
  [[maybe_unused]] const auto written = ::write(pipe_[1], &byte, 1);
  reader_.join();
  ::close(pipe_[0]);
  ::close(pipe_[1]);
}

}  // namespace atelier::app
