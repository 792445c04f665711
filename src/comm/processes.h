// Tests over real processes: one forked process per rank.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "comm/comm.h"

namespace atelier::comm::processes {

struct ProcessResult {
  int status = 0;  // as from waitpid
  std::string errors;
};

// The rank processes of one scenario and the file in which they meet. A rank exits with 0 if the scenario
// returns, otherwise with 1 and the error's text, after "peer: " or "other: ", on stderr.
class Ranks {
 public:
  using Scenario = std::function<void(const Rendezvous& rendezvous)>;
  // Forks: the calling process must have no second thread, since its locks would stay locked in the children.
  // That includes the thread pools of tensor operations: tests that fork keep to small tensors.
  Ranks(int size, std::chrono::milliseconds timeout, const Scenario& scenario);
  ~Ranks();  // kills whoever is left
  void send_signal(int rank, int signal) const;
  std::string line(int rank);  // the next line of this rank's stdout, without its end; waits for it
  ProcessResult join(int rank, std::chrono::seconds patience = std::chrono::seconds(20));  // then kills it

 private:
  struct RankProcess {
    pid_t id = -1;
    int out = -1, errors = -1;  // pipes
  };
  RankProcess start(const Rendezvous& rendezvous, const Scenario& scenario) const;

  std::filesystem::path folder_;
  std::vector<RankProcess> processes_;
};

// In a rank process: writes a line for Ranks::line.
void say(const std::string& line);

}  // namespace atelier::comm::processes
