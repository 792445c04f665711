// The adapters that requests ask for, settled before anything loads.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "pipeline/adapters.h"
#include "request/request.h"

namespace atelier::app {

class AdapterChoice {
 public:
  // strength: of those that do not say their own.
  AdapterChoice(const pipeline::ModelRepo& model, double strength) : adapters_(model), strength_(strength) {}

  // Says every strength and what the files hold, in the request itself. Throws Error(kUsage, kCheckpoint) unless all of
  // them fit the model. Each file is read once.
  void settle(request::Request& request);
  // What each of them changes, a line for people.
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  const std::string& digest(const std::string& path);
  void describe(const std::string& path);

  pipeline::Adapters adapters_;
  double strength_;
  std::map<std::string, std::string> digests_;
  std::vector<std::string> lines_;
};

}  // namespace atelier::app
