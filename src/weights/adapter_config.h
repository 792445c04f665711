// What an adapter says about its scales beside its tensors: PEFT's adapter_config.json, and the same words in
// the header of a file that diffusers wrote. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "weights/tensor_file.h"

namespace atelier::weights {

// Of one part of a model.
struct PartScales {
  std::optional<double> alpha;  // unset: the rank
  // of layers whose path ends in a match; the first counts
  std::vector<std::pair<std::regex, double>> of_pattern;
  bool divides_by_root = false;  // rsLoRA
  bool has_norms = false;        // DoRA

  // alpha / rank of a layer, or alpha / sqrt(rank). path: within the part. own_alpha: that stands beside the
  // layer's tensors and counts before everything else.
  double scale(std::string_view path, int64_t rank, std::optional<double> own_alpha) const;
};

// By the prefix of their layers' names, with its dot: "unet.", "base_model.model.".
using AdapterScales = std::map<std::string, PartScales, std::less<>>;

// adapter_config.json beside a file. Throws Error(kCheckpoint) for an adapter of another kind than LoRA, or
// one that needs the model changed beforehand.
AdapterScales scales_of_folder(const std::filesystem::path& config);
// lora_adapter_metadata of a header; none: empty. Throws Error(kCheckpoint).
AdapterScales scales_of_header(const FileMetadata& metadata, const std::filesystem::path& file);

}  // namespace atelier::weights
