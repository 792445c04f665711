// Adapters: low-rank changes that are added to a checkpoint's linears while they are read, only to the slice that
// is read. Hu et al., LoRA (arXiv 2106.09685).
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "weights/store_decorator.h"

namespace atelier::weights {

// W + scale * up * down.
struct LowRank {
  at::Tensor up;    // B, [out, rank]
  at::Tensor down;  // A, [rank, in]
  double scale = 1;
};

// By the name that the checkpoint gives the layer, without ".weight": "transformer_blocks.0.attn.to_q".
using LowRanks = std::map<std::string, LowRank, std::less<>>;

// A file as diffusers writes it: "<component>.<layer>.lora_A.weight", ".lora_B.weight" and perhaps ".alpha", which
// is the rank where it is absent. scale = strength * alpha / rank. Throws Error(kCheckpoint): a tensor of another
// kind, half a pair, factors that do not fit each other.
LowRanks read_lora(const std::filesystem::path& file, std::string_view component, double strength);

class AdaptedStore : public StoreDecorator {
 public:
  // Throws Error(kCheckpoint) that lists the layers that the base lacks or that have another shape there.
  AdaptedStore(std::unique_ptr<WeightStore> base, LowRanks changes);
  // The sum is made in float (double for double) and rounded once.
  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override;

 private:
  LowRanks changes_;
};

}  // namespace atelier::weights
