// Where in a file a model's tensors lie. Checkpoints put anything before their names:
// "model.diffusion_model.", "net.", "text_encoders.t5xxl.transformer.". Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "weights/names.h"

namespace atelier::weights {

// A prefix, and how many of the tensors that were asked for stand behind it.
struct Place {
  std::string prefix;
  int64_t found = 0;
};

// All prefixes behind which the file has any of the canonical tensors `asked`, in any of the spellings that
// the rules know; those with the most first, of equals the longest. Prefixes that do not end at a dot count
// where half of what is asked, or of all there is, stands behind them, and behind none that ends at one.
std::vector<Place> find_places(std::span<const std::string> names, std::span<const NameRule> rules,
                               std::span<const std::string> asked);

}  // namespace atelier::weights
