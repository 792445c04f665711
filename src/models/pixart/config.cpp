#include "models/pixart/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "models/config.h"

namespace atelier::models {
namespace {

constexpr const char* kFile = "transformer/config.json";

void require(bool is_met, const std::string& what) {
  if (!is_met) throw Error(Kind::kCheckpoint, str(kFile, ": ", what));
}

}  // namespace

PixArtConfig::PixArtConfig(const Json& json) {
  const ConfigReader read(json, kFile);
  heads = {read.positive("num_attention_heads", 16), read.positive("attention_head_dim", 72)};
  width = heads.size();
  text_width = read.positive("cross_attention_dim", 1152);
  caption_width = json.contains("caption_channels") && !json["caption_channels"].is_null()
                      ? read.positive("caption_channels", 4096)
                      : 0;
  channels = read.positive("in_channels", 4);
  const bool has_out = !json.contains("out_channels") || !json["out_channels"].is_null();
  out_channels = has_out ? read.positive("out_channels", 8) : channels;
  sample = static_cast<int>(read.positive("sample_size", 128, 1 << 16));
  base = sample / 2;
  interpolation = read.above_zero("interpolation_scale", std::max(sample / 64, 1));
  blocks = static_cast<int>(read.layers("num_layers", 28));
  bias = read.boolean("attention_bias", true) ? nn::Bias::kYes : nn::Bias::kNo;
  has_sizes = read.boolean("use_additional_conditions", sample == 128);

  require(read.positive("patch_size", 2) == 2 && sample >= 2,
          "expected patch_size 2 and sample_size 2 or more");
  require(width % 4 == 0, str("sines and cosines of two axes need a width divisible by 4, found ", width));
  require(!has_sizes || width % 3 == 0,
          str("use_additional_conditions needs a width divisible by 3, found ", width));
  require(out_channels == channels || out_channels == 2 * channels,
          str("out_channels must be in_channels (", channels, ") or twice as many, found ", out_channels));
  require(
      caption_width == 0 || text_width == width,
      str("caption_channels are projected to ", width, " channels, but cross_attention_dim is ", text_width));
  require(interpolation > 0, str("interpolation_scale must be more than 0, found ", interpolation));
  const auto only = [&](const char* key, const std::string& value) {
    const auto found = read.text(key, value);
    require(found == value, str(key, " must be ", value, ", found ", found));
  };
  only("norm_type", "ada_norm_single");
  only("activation_fn", "gelu-approximate");
  only("attention_type", "default");
  require(!read.boolean("norm_elementwise_affine", false), "norm_elementwise_affine must be false");
  const double eps = read.above_zero("norm_eps", 1e-6);
  require(eps == 1e-6, str("norm_eps must be 1e-6, found ", eps));
}

}  // namespace atelier::models
