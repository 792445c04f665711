// transformer/config.json of Stable Diffusion 3 and 3.5.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "base/json.h"
#include "base/model_facts.h"
#include "base/partition.h"
#include "nn/attention.h"

namespace atelier::models {

struct Sd3Config {
  static constexpr int64_t kPatch = 2;  // latents along each side of a token
  Dim heads;
  int64_t width, channels, text_width, pooled_width, sample_size;
  int64_t most_patches;  // along each side of the position table
  int layers;
  std::vector<int64_t> dual;                      // blocks where the image attends to itself as well
  std::optional<nn::HeadNorm::NormKind> qk_norm;  // none: queries and keys stay as they are

  // Throws Error(kCheckpoint) for values that this implementation does not have.
  explicit Sd3Config(const Json& json);
  bool is_dual(int block) const;
};

// What each block multiplies, without counts. Throws Error(kCheckpoint).
ModelWork work_sd3(const Json& config);

}  // namespace atelier::models
