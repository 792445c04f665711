// The runs of a recorded pipeline: one call, and others that differ from it in some arguments.
#pragma once
#include <string>
#include <vector>

#include "verify/verify.h"

namespace atelier::verify {

struct GoldenRun {
  std::string prefix;  // of its tensors' names, with a dot; empty: the call itself
  Json call;
  Tensors recorded;  // without the prefix; what all runs begin with is in each
};

// The call of golden.json first. "<run>_run" in golden.json holds the arguments that differ in that run; a run
// "no_<word>" leaves out the arguments whose names begin with that word. Throws Error(kUsage) for tensors of a run
// that is described nowhere.
std::vector<GoldenRun> runs_of(const Json& golden, const Tensors& recorded);

}  // namespace atelier::verify
