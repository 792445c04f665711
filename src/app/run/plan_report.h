// What the planner says, for people and for programs.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "app/settings/command_text.h"
#include "base/json.h"
#include "plan/planner.h"

namespace atelier::app {

struct PlanReport {
  std::string model;
  int64_t height = 0, width = 0;
  int ranks = 1;
  plan::PlanQuery query;
  std::vector<plan::Prediction> layouts;  // in the order in which they are shown
  plan::Prediction one;                   // the same pictures on one rank
  // The command that draws with a layout, ready to be typed.
  std::function<std::string(const plan::ParallelConfig&)> command;
};

// Every number in it stands beside "modelled"; of the hardware, where it comes from.
Json to_json(const PlanReport& report);
// A head, then up to `most` layouts that fit, each with its sentence and its command; what does not fit in
// a line each.
std::vector<std::string> lines(const PlanReport& report, size_t most);
// The smallest changes of each kind that make a layout fit: offloading, smaller batches, eight bits, more
// GPUs, or the first and the last together. Empty: none does.
std::vector<std::vector<FlagChange>> ways_to_fit(const plan::PlanQuery& query, int ranks);

}  // namespace atelier::app
