// A file or a folder of low-rank changes: which tensor is which factor of which layer, in the endings of
// every trainer. Layers keep the names that the file gives them; where these belong says
// weights/layer_names.h.
// Hu et al., LoRA (arXiv 2106.09685); Liu et al., DoRA (arXiv 2402.09353); Kalajdzievski,
// rsLoRA (arXiv 2312.03732).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "weights/tensor_file.h"

namespace atelier::weights {

// The change of one layer, whose weight counts as a matrix [rows, cols]: W + scale * up down, or W + whole.
struct AdapterLayer {
  std::string name;                    // "lora_unet_mid_block_1_proj_in", without the factor's ending
  const TensorEntry* up = nullptr;     // B [rows, rank]
  const TensorEntry* down = nullptr;   // A [rank, cols]; of a convolution [rank, in, k, k]
  const TensorEntry* whole = nullptr;  // a difference that has no factors
  const TensorEntry* norms = nullptr;  // of DoRA: what the rows' or columns' lengths become
  const TensorEntry* bias = nullptr;   // [rows], added to the layer's bias
  int64_t rows = 0, cols = 0;          // no columns: only the bias changes
  double scale = 1;                    // alpha / rank, of rsLoRA alpha / sqrt(rank)
  double bias_scale = 1;
  // Along which axis a norm counts: a number for each output; for each input (LyCORIS).
  enum class Norms : uint8_t { kNone, kRows, kColumns } kind = Norms::kNone;
};

class AdapterFile {
 public:
  // A safetensors file, or a folder: adapter_model.safetensors with adapter_config.json, or one safetensors
  // file. Reads headers and what scales the layers. Throws Error(kUsage): nothing there. Throws
  // Error(kCheckpoint): a tensor that is no part of an adapter, half a pair, factors that do not fit each
  // other, another kind of adapter.
  explicit AdapterFile(const std::filesystem::path& place);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::vector<AdapterLayer>& layers() const { return layers_; }
  // One of a layer's tensors, on the CPU, float32.
  at::Tensor read(const TensorEntry& entry) const;
  // Throws Error(kCheckpoint) naming a tensor that holds NaN or infinity. Reads the whole file.
  void check_numbers() const;

 private:
  std::unique_ptr<const TensorFile> file_;
  std::vector<AdapterLayer> layers_;  // in the order of their names
};

// The safetensors file that a path stands for. Throws Error(kUsage).
std::filesystem::path find_adapter(const std::filesystem::path& place);
// Tells whether a file is the same as before, from its contents: 16 hexadecimal digits.
std::string adapter_digest(const std::filesystem::path& place);

}  // namespace atelier::weights
