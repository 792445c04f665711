// Repeats the call that a golden folder describes and compares every recorded tensor.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "base/json.h"
#include "nn/builder.h"
#include "plan/parallel_config.h"
#include "weights/tensors.h"

namespace atelier::verify {

using weights::Tensors;

struct VerifyOptions {
  std::filesystem::path folder;   // golden.json, golden.safetensors or *.jsonl, model/
  std::vector<std::string> only;  // globs of tensor names; none: all
  c10::Device device = c10::kCPU;
  at::ScalarType denoiser = at::kFloat;  // the rest computes in float32
  nn::Tier tier =
      nn::Tier::kExact;  // others: with the errors of bfloat16 under the same call beside their own
  nn::AttentionDtype attention_dtype = nn::AttentionDtype::kAuto;  // others as with tiers
  plan::ParallelConfig degrees;
};

enum class Verdict { kPass, kFail, kMissing };
struct ComparisonRow {
  std::string name, shape, note;
  double max = 0, mean = 0;  // of |a - b| / rms(b), or the absolute error, or PSNR where the note says so
  Verdict verdict = Verdict::kPass;
};
struct Comparison {
  std::vector<ComparisonRow> rows;
  int count(Verdict v) const;
  bool passed() const { return count(Verdict::kFail) == 0 && count(Verdict::kMissing) == 0 && !rows.empty(); }
};

// Throws Error(kUsage, kCheckpoint) for a folder that is not of this form, or whose call has an argument that
// is not understood: the message names it.
Comparison verify(const VerifyOptions& options);
void print(const Comparison& result, std::ostream& out);

}  // namespace atelier::verify
