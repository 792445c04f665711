// How many ranks draw, and how they share the work.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "app/run/device_choice.h"
#include "app/settings/resolve.h"
#include "pipeline/model_repo.h"
#include "plan/layouts.h"
#include "request/work.h"

namespace atelier::app {

struct LayoutChoice {
  plan::ParallelConfig degrees;
  int ranks = 1;
  std::string why;                    // one clause: who decided
  std::vector<std::string> remarks;   // advice, one sentence each
  std::vector<std::string> warnings;  // where the layout costs more than it gives
};

// The least picture of a run, for limits and advice.
struct Extent {
  int64_t height = 0, width = 0;
  plan::Workload work;
};

// What the settings say about degrees: fields and --strategy together.
plan::ParallelConfig degrees_of(const Resolved& resolved);

// The number that --num_gpus asks for; 0: auto. Throws Error(kUsage) for anything else.
int asked_ranks(const Resolved& resolved);

// A layout with the clause that says why.
struct BestLayout {
  plan::ParallelConfig degrees;
  std::string why;
};

struct Machine {
  DeviceChoice device;
  int devices = 0;                                  // GPUs of this machine
  int launched = 0;                                 // ranks that an outer launcher has started; 0: none
  std::function<void(int ranks)> check_ranks = {};  // throws for more than this machine carries
  // The planner's choice where it knows the hardware; empty: the rule (plan::automatic) chooses.
  std::function<BestLayout(const plan::LayoutQuery&, int ranks)> best = {};
};
// Throws Error(kUsage) with the numbers and the nearest layouts that would work.
LayoutChoice choose_layout(const Resolved& resolved, const plan::LayoutQuery& query, const Machine& machine);

}  // namespace atelier::app
