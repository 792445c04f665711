#include "models/wan/config.h"

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

int64_t positive_or_none(const ConfigReader& read, const Json& json, const char* key) {
  return json.contains(key) && !json[key].is_null() ? read.positive(key, 1) : 0;
}

}  // namespace

WanConfig::WanConfig(const Json& json) {
  const ConfigReader read(json, kFile);
  heads = {read.positive("num_attention_heads", 40), read.positive("attention_head_dim", 128)};
  width = heads.size();
  inner = read.positive("ffn_dim", 13824);
  text_width = read.positive("text_dim", 4096);
  image_width = positive_or_none(read, json, "image_dim");
  image_positions = positive_or_none(read, json, "pos_embed_seq_len");
  channels = read.positive("in_channels", 16);
  const bool has_out = !json.contains("out_channels") || !json["out_channels"].is_null();
  out_channels = has_out ? read.positive("out_channels", 16) : channels;
  sinusoid = read.positive("freq_dim", 256);
  most_positions = read.positive("rope_max_seq_len", 1024);
  blocks = static_cast<int>(read.layers("num_layers", 40));
  control_layers = json.contains("vace_layers") ? read.integers("vace_layers", {}) : std::vector<int64_t>{};
  control_channels = control_layers.empty() ? 0 : read.positive("vace_in_channels", 96);

  require(read.integers("patch_size", {1, 2, 2}) == std::vector<int64_t>({1, 2, 2}),
          "patch_size must be [1, 2, 2]");
  require(heads.unit % 2 == 0, str("rotary positions need an even attention_head_dim, found ", heads.unit));
  require(sinusoid % 2 == 0, str("freq_dim must be even, found ", sinusoid));
  require(read.text("qk_norm", "rms_norm_across_heads") == "rms_norm_across_heads",
          str("qk_norm must be rms_norm_across_heads, found ", read.text("qk_norm", "")));
  require(read.boolean("cross_attn_norm", true), "cross_attn_norm must be true");
  const double eps = read.above_zero("eps", 1e-6);
  require(eps == 1e-6, str("eps must be 1e-6, found ", eps));
  const int64_t added = positive_or_none(read, json, "added_kv_proj_dim");
  require(image_width == 0 || added == 0 || added == width,
          str("added_kv_proj_dim must be the width of the model, ", width, ", found ", added));
  require((image_width > 0) == (added > 0), "image_dim and added_kv_proj_dim must be given together");
  require(image_positions == 0 || image_width > 0, "pos_embed_seq_len needs image_dim");
  constexpr int64_t kMaskChannels = 4;  // one for each pixel frame of a latent frame
  require(channels == out_channels || channels == 2 * out_channels + kMaskChannels,
          str("in_channels must be out_channels (", out_channels, "), or ", 2 * out_channels + kMaskChannels,
              " of models that are given frames, found ", channels));
  const auto& c = control_layers;
  require(c.empty() || (c.front() == 0 && c.back() < blocks && std::is_sorted(c.begin(), c.end()) &&
                        std::adjacent_find(c.begin(), c.end()) == c.end()),
          str("vace_layers must rise from 0 and stay below num_layers, ", blocks));
}

}  // namespace atelier::models
