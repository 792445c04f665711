// Writing what a store holds as a checkpoint folder with the checkpoint's own names: dummy models for load
// tests, and conversions of one naming into another.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "weights/names.h"
#include "weights/store.h"

namespace atelier::weights {

struct SaveOptions {
  std::filesystem::path folder;  // of the component, such as DIR/transformer
  std::string stem = "diffusion_pytorch_model";
  at::ScalarType dtype = at::kBFloat16;  // also float32 and float16
  c10::Device device = c10::kCPU;        // where the values are read or made
  int64_t max_shard_bytes = 5'000'000'000;
};

// Writes every tensor that was asked of `store`. `rules` lead from the checkpoint's names to the canonical
// ones and are followed backwards: a stacked tensor is cut equally along its axis (or by the rule's rows),
// several canonical tensors that share a checkpoint tensor are joined. Tensors without a rule keep their
// names. Returns the bytes of all tensors. Throws Error(kUsage) if a rule leaves part of a tensor undefined,
// Error(kCapacity) when the disk is full.
int64_t save_checkpoint(const WeightStore& store, std::span<const NameRule> rules,
                        const SaveOptions& options);

}  // namespace atelier::weights
