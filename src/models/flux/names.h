// FLUX.1 checkpoints: the names of both namings as data, and what a single file in the original naming tells
// about the model's sizes (such files come without a config).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "weights/names.h"
#include "weights/store.h"

namespace atelier::models {

// diffusers folders: transformer_blocks.{}.attn.to_q, ... -> double.{}.image.qkv, ...
std::vector<weights::NameRule> names_flux_diffusers();

// Black Forest Labs' own naming: double_blocks.{}.img_attn.qkv, single_blocks.{}.linear1, ... -> the same
// canonical names. `width` is the model's width (row ranges of fused tensors depend on it).
// final_layer.adaLN_modulation holds shift then scale, norm_out.linear the reverse: its halves are swapped.
std::vector<weights::NameRule> names_flux_original(int64_t width);

// XLabs' trainer changes attention alone, under names of its own.
std::vector<weights::NameRule> names_flux_xlabs();

// Sizes as the tensors of a file show them.
struct FluxSizes {
  int64_t width = 0, head_dim = 0, in_channels = 0, out_channels = 0, text_width = 0, pooled_width = 0;
  int doubles = 0, singles = 0;
  bool guidance = false;  // has a guidance embedding (dev)
};
// Nothing if the store holds no FLUX transformer in either naming.
// Throws Error(kCheckpoint) if it does but lacks a tensor that tells a size.
std::optional<FluxSizes> find_flux(const weights::WeightStore& store);
// config.json of such a file, with what no tensor tells taken from `like`. Throws
// Error(kCheckpoint), also for the variants that take more than a text (Fill, Depth, Canny, Kontext)
// and for relatives of other mathematics.
Json config_of_flux_file(const weights::WeightStore& file, const Json& like);

}  // namespace atelier::models
