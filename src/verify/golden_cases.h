// The kinds of golden folders, and what the shipped code computes for each.
#pragma once
#include <string>
#include <vector>

#include "verify/verify.h"

namespace atelier::verify {

// Told by what golden.json describes, not by a name.
enum class GoldenKind { kPipeline, kVaes, kEncoders, kSchedulers, kTokenizers };
GoldenKind kind_of(const Json& golden);

// Tensors by their golden names, batch first, and the order in which they were computed.
struct Produced {
  Tensors tensors;
  std::vector<std::string> order;
  std::map<std::string, std::string> refused;  // by what names begin with: why nothing is produced

  void add(const std::string& name, const at::Tensor& value);  // an undefined one is left out
};

// Of the parts of a pipeline; whole ones have runs (golden_runs.h). All throw Error(kUsage, kCheckpoint).
Produced produce(GoldenKind kind, const VerifyOptions& options, const Json& golden, const Tensors& recorded);
Comparison verify_tokenizers(const VerifyOptions& options, const Json& golden);

}  // namespace atelier::verify
