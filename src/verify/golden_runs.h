// The runs of a recorded pipeline: one call, and others that differ from it in some arguments.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "request/adapters.h"
#include "verify/verify.h"

namespace atelier::verify {

struct GoldenRun {
  std::string prefix;  // of its tensors' names, with a dot; empty: the call itself
  Json call;
  Tensors recorded;  // without the prefix; what all runs begin with is in each
};

// The call of golden.json first, with seed_noise as its seed. "<run>_run" in golden.json holds the arguments
// that differ in that run; a run "no_<word>" leaves out the arguments whose names begin with that word.
// Throws Error(kUsage) for tensors of a run that is described nowhere.
// "runs" describes runs of the same call with an adapter each, and its scale. A run that is described nowhere
// may be named after a sampler ("euler"); "plain" shows the model nothing but a control video; a described
// "noise[:, :, N:]" leaves out the first N latent frames of the noise.
std::vector<GoldenRun> runs_of(const Json& golden, const Tensors& recorded);

// The adapters of a run, "adapter" and "scale" of its description: one, several or none.
std::vector<request::AdapterRef> adapters_of(const Json& golden, const std::string& run);

// A weight as a run's adapter leaves it, recorded as "merged.<run>.<component>.<tensor>".
struct MergedWeight {
  std::string name, run, component, tensor;
};
// Throws Error(kUsage) for one that belongs to no run.
std::vector<MergedWeight> merged_of(const Json& golden, const Tensors& recorded);

}  // namespace atelier::verify
