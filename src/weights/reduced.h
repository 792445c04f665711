// How writers of reduced checkpoints mark what they did: by the names of tensors beside the weights.
// Torch-free.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "weights/tensor_file.h"

namespace atelier::weights {

struct Reduced {
  // Weight -> the tensor that holds its scale: one number, or one for each row. W = stored * scale.
  std::map<std::string, std::string, std::less<>> scale_of;
  // What belongs to the format and is no weight: scales, markers, scales of inputs (which only say
  // how to compute).
  std::set<std::string, std::less<>> marks;
};

// Bytes of a small tensor.
using ReadBytes = std::function<std::string(const TensorEntry&)>;

// Understands 8-bit floats with "X.scale_weight" or "X.weight_scale", announced by "scaled_fp8",
// "X.comfy_quant" or "_quantization_metadata", or by nothing. Throws Error(kCheckpoint), beginning with
// `file`, that names the format and what to take instead for everything else: 4-bit and integer formats of
// any writer, scales of blocks, and files that hold a change to a model and none; and for floats that are
// scaled, or whose like in other blocks are, without a scale. Open to fuzzing.
Reduced find_reduced(std::string_view file, const Entries& entries, const FileMetadata& metadata,
                     const ReadBytes& read);

}  // namespace atelier::weights
