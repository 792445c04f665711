#include "cluster/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/process_state.h"

namespace atelier::cluster {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::string> whole_environment(const std::vector<std::string>& ours) {
  std::vector<std::string> all = ours;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view name = std::string_view(*entry).substr(0, std::string_view(*entry).find('='));
    const bool is_replaced = std::any_of(ours.begin(), ours.end(), [&](const std::string& o) {
      return std::string_view(o).substr(0, o.find('=')) == name;
    });
    if (!is_replaced) all.emplace_back(*entry);
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (auto& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

// Between fork and exec of a process with threads only system calls are safe.
[[noreturn]] void become(const ChildPlan& plan, pid_t parent, char* const* arguments,
                         char* const* environment) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before we asked
  // dup2 to high numbers first, so that neither target overwrites a source still needed
  const int socket = ::fcntl(plan.socket, F_DUPFD, 16);
  const int rendezvous = plan.rendezvous >= 0 ? ::fcntl(plan.rendezvous, F_DUPFD, 16) : -1;
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  ::dup2(socket, kChildSocket);
  if (rendezvous >= 0) ::dup2(rendezvous, kChildRendezvous);
  close_from(rendezvous >= 0 ? kChildRendezvous + 1 : kChildRendezvous);
  for (int signal = 1; signal < SIGRTMIN; ++signal) ::signal(signal, SIG_DFL);
  ::signal(SIGPIPE, SIG_IGN);  // it writes to our stderr, which may be closed by then
  // A terminal and what supervises a service tell every process, workers too: what it means is the
  // pool's to say.
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) ::signal(signal, SIG_IGN);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve("/proc/self/exe", arguments, environment);
  ::_exit(127);
}

// 0 for what is no number.
int number_in(const char* text) {
  int number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) number = 10 * number + *text - '0';
  return number;
}

}  // namespace

void close_from(int first) {
  if (::syscall(SYS_close_range, static_cast<unsigned>(first), ~0U, 0) == 0) return;
  // a kernel before 5.9, or a sandbox that does not know the call
  const int folder = ::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  alignas(dirent64) char entries[4096];
  long size = 0;
  while (folder >= 0 && (size = ::syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0) {
    for (long at = 0; at < size;) {
      const auto* const entry = reinterpret_cast<const dirent64*>(entries + at);
      const int fd = number_in(entry->d_name);
      if (fd >= first && fd != folder) ::close(fd);
      at += entry->d_reclen;
    }
  }
  if (folder >= 0) ::close(folder);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Child Child::start(const ChildPlan& plan) {
  std::vector<std::string> arguments{program_invocation_short_name, "worker", "--fd",
                                     std::to_string(kChildSocket)};
  auto environment = whole_environment(plan.environment);
  const auto argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = ::getpid();
  const pid_t id = ::fork();
  if (id < 0) throw Error(Kind::kCapacity, str("no process can be started: ", std::strerror(errno)));
  if (id == 0) become(plan, parent, argv.data(), envp.data());
  return Child(id);
}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(status_, other.status_);
  return *this;
}

Child::~Child() {
  end(kPatience);
}

bool Child::end(std::chrono::milliseconds patience) {
  if (id_ < 0) return true;
  signal(SIGKILL);
  for (const auto until = Clock::now() + patience; !status();) {
    if (Clock::now() >= until) {
      log::error(str("process ", std::exchange(id_, -1),
                     " does not end though it was killed; it is left behind, with the memory that it holds"));
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

void Child::signal(int number) const {
  if (id_ > 0 && !status_) ::kill(id_, number);
}

bool Child::is_stopped() const {
  return process_state(id_) == 'T';
}

std::optional<int> Child::status() {
  if (status_) return status_;
  int status = 0;
  const pid_t found = ::waitpid(id_, &status, WNOHANG);
  if (found == id_) status_ = status;
  if (found < 0 && errno == ECHILD) status_ = 0;  // somebody else has waited for it
  return status_;
}

std::string status_text(int status) {
  if (WIFSIGNALED(status)) {
    return str("was ended by signal ", WTERMSIG(status), " (", ::strsignal(WTERMSIG(status)), ")");
  }
  return str("left with exit code ", WEXITSTATUS(status));
}

int usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

Descriptor memory_file() {
  const int fd = ::memfd_create("atelier-meeting", MFD_CLOEXEC);
  if (fd < 0) throw Error(Kind::kCapacity, str("no file in memory can be made: ", std::strerror(errno)));
  return Descriptor(fd);
}

}  // namespace atelier::cluster
