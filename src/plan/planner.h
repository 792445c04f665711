// The one chooser of layouts: predicts what each takes and holds, refuses what does not fit, ranks the rest.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "plan/hardware.h"
#include "plan/rank_memory.h"
#include "plan/step_time.h"

namespace atelier::plan {

struct PlanQuery {
  StepQuery step;
  MemoryQuery memory;
  Hardware hardware;
  int64_t room = 0;  // bytes of each GPU that a run may take; 0: hardware.memory
};

// All numbers are modelled.
struct Prediction {
  ParallelConfig degrees;
  StepTime step;
  double encode_s = 0, decode_s = 0;
  double picture_s = 0;           // one batch of a data group from prompt to pixels, without writing the file
  double run_s = 0;               // all pictures of the run
  std::vector<RankMemory> ranks;  // of one data group
  bool is_exact = true;           // draws what one rank draws; false: attends to stale keys
  bool fits = true;

  const RankMemory& most() const { return ranks[fullest(ranks)]; }
};

Prediction predict(const PlanQuery& query, const ParallelConfig& degrees);

// All layouts of exactly so many ranks, with weights in shards where that changes something: what fits first,
// then by the time of the run.
std::vector<Prediction> ranked(const PlanQuery& query, int num_gpus);

// The fastest of those that fit and are exact; if there is none, what fits; if nothing does, the one that
// comes nearest to fitting.
Prediction best_exact(const PlanQuery& query, int num_gpus);

// One sentence: what cuts the work, what the exchange costs, what it holds and why. `one`: the same work
// on one rank.
std::string explanation(const Prediction& prediction, const Prediction& one, const PlanQuery& query);

}  // namespace atelier::plan
