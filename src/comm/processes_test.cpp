// Forks rank processes and collects what became of them.
#include "comm/processes.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <iterator>

#include "base/check.h"
#include "base/error.h"

namespace atelier::comm::processes {
namespace {

using std::chrono::steady_clock;

int run(const Rendezvous& rendezvous, const Ranks::Scenario& scenario) {
  try {
    scenario(rendezvous);
    return 0;
  } catch (const Error& error) {
    std::cerr << (error.kind() == Kind::kPeer ? "peer: " : "other: ") << error.what() << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "other: " << error.what() << std::endl;
  }
  return 1;
}

// Everything that comes through a pipe until it is closed; false if that takes too long.
bool read_to_end(int pipe, steady_clock::time_point deadline, std::string& text) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
    pollfd watched{pipe, POLLIN, 0};
    if (left <= 0 || poll(&watched, 1, static_cast<int>(left)) <= 0) return false;
    char buffer[4096];
    const auto n = read(pipe, buffer, sizeof buffer);
    if (n <= 0) return true;
    text.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace

Ranks::Ranks(int size, std::chrono::milliseconds timeout, const Scenario& scenario) {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  ENSURE(std::distance(begin(threads), end(threads)) == 1);
  std::string folder = (std::filesystem::temp_directory_path() / "comm-test-XXXXXX").string();
  ENSURE(mkdtemp(folder.data()) != nullptr);
  folder_ = folder;
  Rendezvous rendezvous;
  rendezvous.file = folder_ / "meeting";
  rendezvous.size = size;
  rendezvous.timeout = timeout;
  for (rendezvous.rank = 0; rendezvous.rank < size; ++rendezvous.rank)
    processes_.push_back(start(rendezvous, scenario));
}

Ranks::RankProcess Ranks::start(const Rendezvous& rendezvous, const Scenario& scenario) const {
  int out[2], errors[2];
  ENSURE(pipe2(out, O_CLOEXEC) == 0 && pipe2(errors, O_CLOEXEC) == 0);
  std::cout.flush();
  std::fflush(nullptr);
  const pid_t id = fork();
  ENSURE(id >= 0);
  if (id == 0) {
    // Earlier ranks' pipes are open here too, but only for reading, which keeps nobody waiting.
    dup2(out[1], STDOUT_FILENO);
    dup2(errors[1], STDERR_FILENO);
    const int status = run(rendezvous, scenario);
    std::cout.flush();
    _exit(status);  // the parent's test report must not be finished here
  }
  close(out[1]);
  close(errors[1]);
  return {id, out[0], errors[0]};
}

Ranks::~Ranks() {
  for (auto& process : processes_) {
    if (process.id > 0) {
      kill(process.id, SIGKILL);
      waitpid(process.id, nullptr, 0);
    }
    close(process.out);
    close(process.errors);
  }
  std::filesystem::remove_all(folder_);
}

void Ranks::send_signal(int rank, int signal) const {
  ENSURE(kill(processes_[rank].id, signal) == 0);
}

std::string Ranks::line(int rank) {
  std::string text;
  for (char next = 0; read(processes_[rank].out, &next, 1) == 1 && next != '\n';) text += next;
  return text;
}

ProcessResult Ranks::join(int rank, std::chrono::seconds patience) {
  auto& process = processes_[rank];
  ProcessResult outcome;
  if (!read_to_end(process.errors, steady_clock::now() + patience, outcome.errors)) {
    kill(process.id, SIGKILL);
    outcome.errors += "killed by the test: it did not end";
  }
  waitpid(process.id, &outcome.status, 0);
  process.id = -1;
  return outcome;
}

void say(const std::string& line) {
  std::cout << line << std::endl;
}

}  // namespace atelier::comm::processes
