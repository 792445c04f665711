// The adapters that requests ask for, settled before anything loads.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/adapters.h"
#include "request/request.h"

namespace atelier::app {

// Any thread; calls wait for each other.
class AdapterChoice {
 public:
  // strength: of those that do not say their own.
  AdapterChoice(const pipeline::ModelRepo& model, double strength)
      : model_(model), adapters_(model), strength_(strength) {}

  // Says every strength and what the files hold, in the request itself. Throws Error(kUsage, kCheckpoint)
  // unless all of them fit the model. Each file is read once, and again when it has changed.
  void settle(request::Request& request);
  // What keeps a settled request's control video and its adapters from going together; empty: nothing.
  std::string control_problem(const request::Request& request);
  // What each of them changes, a line for people.
  std::vector<std::string> lines() const;

 private:
  // Of a file and of the configuration beside it: place on the disk, bytes, time of the last change in ns.
  using FileState = std::array<std::array<int64_t, 4>, 2>;
  struct KnownFile {
    FileState state = {};
    std::string digest;
    std::string line;
  };
  static FileState state_of(const std::string& path);
  const std::string& digest(const request::AdapterRef& adapter);
  std::string described(const request::AdapterRef& adapter);

  const pipeline::ModelRepo& model_;
  pipeline::Adapters adapters_;
  double strength_;
  mutable std::mutex mutex_;
  std::map<std::string, KnownFile> known_;  // by path and expert
  std::vector<std::string> order_;          // of known_, as they were first asked for
};

}  // namespace atelier::app
