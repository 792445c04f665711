// A run as a whole, settled before anything loads: the model, the pictures, the layout, the job.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/run/find_model.h"
#include "app/run/layout_choice.h"
#include "app/run/requests.h"
#include "app/settings/resolve.h"
#include "cluster/job.h"
#include "report/clock.h"

namespace atelier::app {

struct RunSpec {
  FoundModel model;
  RequestSet requests;
  LayoutChoice layout;
  DeviceChoice device;
  cluster::Job job;
  report::Stopwatch clock;  // since the command began
};

// launched: ranks that an outer launcher has started; 0: none. Throws Error(kUsage, kCheckpoint): nothing of
// the model is loaded, but its files are checked against what they should hold.
RunSpec make_run_spec(const Resolved& resolved, FoundModel model, request::Prompts prompts, int launched);

// The head of a run for people, one fact per line.
std::vector<std::string> header(const RunSpec& spec, const Resolved& resolved);

}  // namespace atelier::app
