// A run as a whole, settled before anything loads: the model, the pictures, the layout, the job.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/run/find_model.h"
#include "app/run/layout_choice.h"
#include "app/run/requests.h"
#include "app/settings/resolve.h"
#include "base/model_facts.h"
#include "cluster/job.h"
#include "report/clock.h"

namespace atelier::app {

struct RunSpec {
  FoundModel model;
  ModelFacts facts;  // counted
  ModelWork work;    // the same, for predictions
  RequestSet requests;
  LayoutChoice layout;
  DeviceChoice device;
  cluster::Job job;
  report::Stopwatch clock;  // since the command began
};

// How a run computes, from its settings and what is settled so far: model, pictures, device, layout.
pipeline::EngineConfig engine_config(const Resolved& resolved, const RunSpec& spec);

// launched: ranks that an outer launcher has started; 0: none. Throws Error(kUsage, kCheckpoint): nothing of
// the model is loaded, but its files are checked against what they should hold.
RunSpec make_run_spec(const Resolved& resolved, FoundModel model, request::Prompts prompts, int launched,
                      const RowOptions& rows = {});

// Throws Error(kUsage) where the command does not draw what the model does, pictures or videos.
void check_surface(const Resolved& resolved, const FoundModel& model);

// The same for a server, whose work comes later: one group of ranks, every evaluation exact. cfg=2 is taken
// as it is asked for, the calls will show how many samples they have.
RunSpec make_served_spec(const Resolved& resolved, FoundModel model);

// A server learns what to draw later.
enum class HeaderOf { kRun, kServer };
// The head of a run for people, one fact per line.
std::vector<std::string> header(const RunSpec& spec, const Resolved& resolved,
                                HeaderOf whose = HeaderOf::kRun);

}  // namespace atelier::app
