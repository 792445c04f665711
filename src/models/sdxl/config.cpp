#include "models/sdxl/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"

namespace atelier::models {
namespace {

constexpr const char* kFile = "unet/config.json";

[[noreturn]] void refuse(const std::string& key, const Json& found, const std::string& expected) {
  throw Error(Kind::kCheckpoint, str(kFile, ": ", key, " is ", found.dump(), "; this build has ", expected));
}

const Json& value_of(const Json& json, std::string_view key) {
  static const Json nothing;
  const auto found = json.find(key);
  return found == json.end() ? nothing : *found;
}

// What the class can be and SDXL is not: any value but the first two (absent, null) of each list is refused.
void refuse_other_kinds(const Json& json) {
  struct Only {
    const char* key;
    Json value;  // beside null
  };
  const Only only[] = {{"num_attention_heads", nullptr},
                       {"only_cross_attention", false},
                       {"dual_cross_attention", false},
                       {"class_embed_type", nullptr},
                       {"num_class_embeds", nullptr},
                       {"class_embeddings_concat", false},
                       {"encoder_hid_dim", nullptr},
                       {"encoder_hid_dim_type", nullptr},
                       {"attention_type", "default"},
                       {"resnet_time_scale_shift", "default"},
                       {"time_embedding_type", "positional"},
                       {"time_embedding_act_fn", nullptr},
                       {"timestep_post_act", nullptr},
                       {"time_cond_proj_dim", nullptr},
                       {"downsample_padding", 1},
                       {"freq_shift", 0}};
  for (const auto& [key, value] : only) {
    const Json& found = value_of(json, key);
    if (found.is_null() || found == value) continue;
    const bool is_all_false =
        value == Json(false) && found.is_array() &&
        std::all_of(found.begin(), found.end(), [](const Json& v) { return v == false; });
    if (!is_all_false) refuse(key, found, value.is_null() ? "UNets without it" : value.dump());
  }
  const Json& act = value_of(json, "act_fn");
  if (!act.is_null() && act != "silu" && act != "swish") refuse("act_fn", act, "silu");
  const Json& added = value_of(json, "addition_embed_type");
  if (added != "text_time") refuse("addition_embed_type", added, "text_time");
}

int64_t count(const Json& value, const std::string& key, int64_t least = 1) {
  if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > 1 << 20)
    refuse(key, value, str("whole numbers from ", least));
  return value.get<int64_t>();
}

// One number for all, or one for each level.
std::vector<int64_t> per_level(const Json& json, const std::string& key, size_t levels, int64_t otherwise) {
  const Json& value = value_of(json, key);
  if (value.is_null()) return std::vector<int64_t>(levels, otherwise);
  if (!value.is_array()) return std::vector<int64_t>(levels, count(value, key));
  if (value.size() != levels) refuse(key, value, str("one number for each of the ", levels, " levels"));
  std::vector<int64_t> all;
  for (const auto& one : value) all.push_back(count(one, key));
  return all;
}

// Transformer blocks behind each of `layers` resnets: one number, or a list.
std::vector<int64_t> per_layer(const Json& value, const std::string& key, int64_t layers) {
  if (!value.is_array()) return std::vector<int64_t>(static_cast<size_t>(layers), count(value, key));
  if (std::ssize(value) < layers) refuse(key, value, str("a number for each of ", layers, " resnets"));
  std::vector<int64_t> all;
  for (const auto& one : value) all.push_back(count(one, key));
  all.resize(static_cast<size_t>(layers));
  return all;
}

// Whether each block attends.
std::vector<bool> attends(const Json& json, const std::string& key, size_t levels, std::string_view with,
                          std::string_view without) {
  const Json& value = value_of(json, key);
  const auto expected = str("a list of ", levels, " of ", with, " and ", without);
  if (!value.is_array() || value.size() != levels) refuse(key, value, expected);
  std::vector<bool> all;
  for (const auto& one : value) {
    auto name = one.is_string() ? one.get<std::string>() : "";
    if (name.starts_with("UNetRes")) name = name.substr(7);
    if (name != with && name != without) refuse(key, one, expected);
    all.push_back(name == with);
  }
  return all;
}

// What transformer_layers_per_block says on the way down, and on the way up, level by level.
struct TransformerCounts {
  std::vector<Json> down, up;
  TransformerCounts(const Json& json, size_t levels) {
    const char *key = "transformer_layers_per_block", *reverse = "reverse_transformer_layers_per_block";
    const Json& given = value_of(json, key);
    const Json& back = value_of(json, reverse);
    const auto list = [&](const Json& value, const char* name) {
      if (!value.is_array()) return std::vector<Json>(levels, value.is_null() ? Json(1) : value);
      if (value.size() != levels) refuse(name, value, str("an entry for each of the ", levels, " levels"));
      return std::vector<Json>(value.begin(), value.end());
    };
    down = list(given, key);
    const bool is_nested = std::any_of(down.begin(), down.end(), [](const Json& j) { return j.is_array(); });
    if (back.is_null() && is_nested) refuse(key, given, str("lists of lists beside ", reverse, " only"));
    if (!back.is_null() && !back.is_array()) refuse(reverse, back, "a list");
    up = down;
    if (back.is_null()) return;
    up = list(back, reverse);
    std::reverse(up.begin(), up.end());  // in the order of the levels, as `down`
  }
};

}  // namespace

UNetConfig::UNetConfig(const Json& json) {
  const ConfigReader read(json, kFile);
  refuse_other_kinds(json);
  const auto widths = read.integers("block_out_channels", {320, 640, 1280, 1280});
  const size_t n = widths.size();
  if (n == 0 || n > 16) refuse("block_out_channels", widths, "1 to 16 levels");
  const auto layers = per_level(json, "layers_per_block", n, 2);
  const auto heads = per_level(json, "attention_head_dim", n, 8);
  const auto down = attends(json, "down_block_types", n, "CrossAttnDownBlock2D", "DownBlock2D");
  auto up = attends(json, "up_block_types", n, "CrossAttnUpBlock2D", "UpBlock2D");
  std::reverse(up.begin(), up.end());
  const auto text = per_level(json, "cross_attention_dim", n, 1280);
  const TransformerCounts blocks(json, n);
  groups = read.positive("norm_num_groups", 32);
  for (size_t i = 0; i < n; ++i) {
    if (widths[i] < 1 || widths[i] % groups != 0)
      refuse("block_out_channels", widths, str("channels that divide into ", groups, " groups"));
    if (heads[i] > widths[i]) refuse("attention_head_dim", heads, str("at most ", widths[i], " heads"));
    if (text[i] != text[0]) refuse("cross_attention_dim", text, "one width of the text");
    auto& level = levels.emplace_back();
    level.channels = widths[i];
    level.heads = {heads[i], widths[i] / heads[i]};
    level.down.assign(static_cast<size_t>(layers[i]), 0);
    level.up.assign(static_cast<size_t>(layers[i]) + 1, 0);
    if (down[i]) level.down = per_layer(blocks.down[i], "transformer_layers_per_block", layers[i]);
    if (up[i])
      level.up = per_layer(blocks.up[i], "transformer_layers_per_block on the way up", layers[i] + 1);
  }
  latent_channels = read.positive("in_channels", 4);
  if (read.positive("out_channels", 4) != latent_channels)
    refuse("out_channels", value_of(json, "out_channels"),
           "as many as in_channels, so no models that take a mask and a masked picture beside the latents");
  sample_size = read.positive("sample_size", 128);
  text_width = text[0];
  eps = read.above_zero("norm_eps", 1e-5);
  time_width = read.positive("time_embedding_dim", 4 * widths[0]);
  size_width = read.positive("addition_time_embed_dim", 256);
  added_width = read.positive("projection_class_embeddings_input_dim", 2816);
  kernel_in = read.positive("conv_in_kernel", 3, 15);
  kernel_out = read.positive("conv_out_kernel", 3, 15);
  if (kernel_in % 2 == 0 || kernel_out % 2 == 0)
    refuse(kernel_in % 2 == 0 ? "conv_in_kernel" : "conv_out_kernel",
           kernel_in % 2 == 0 ? kernel_in : kernel_out, "odd sizes");
  projects_tokens = read.boolean("use_linear_projection", false);
  cosines_first = read.boolean("flip_sin_to_cos", true);
  is_centred = read.boolean("center_input_sample", false);
  middle_scale = read.number("mid_block_scale_factor", 1);
  const Json& middle =
      json.contains("mid_block_type") ? json["mid_block_type"] : Json("UNetMidBlock2DCrossAttn");
  if (!middle.is_null() && middle != "UNetMidBlock2DCrossAttn" && middle != "UNetMidBlock2D")
    refuse("mid_block_type", middle, "UNetMidBlock2DCrossAttn, UNetMidBlock2D and none");
  has_middle = !middle.is_null();
  middle_blocks = middle == "UNetMidBlock2DCrossAttn"
                      ? per_layer(blocks.down.back(), "transformer_layers_per_block", 1).front()
                      : 0;
}

int64_t UNetConfig::fewest_heads() const {
  int64_t fewest = middle_blocks > 0 ? levels.back().heads.count : 1 << 20;
  for (const auto& level : levels) {
    const bool has_attention = level.down.front() > 0 || level.up.front() > 0;
    if (has_attention) fewest = std::min(fewest, level.heads.count);
  }
  return fewest == 1 << 20 ? 1 : fewest;
}

std::string UNetBlock::path() const {
  return kind == kMiddle ? "mid_block" : str(kind == kDown ? "down_blocks." : "up_blocks.", index);
}

std::vector<UNetBlock> blocks_of(const UNetConfig& c) {
  std::vector<UNetBlock> all;
  const auto n = std::ssize(c.levels);
  int64_t channels = c.channels();
  std::vector<int64_t> skips{channels};  // what has been left for the way up
  for (int64_t i = 0; i < n; ++i) {
    const auto& level = c.levels[static_cast<size_t>(i)];
    const auto layers = std::ssize(level.down);
    for (int64_t k = 0; k < layers; ++k) {
      all.push_back({UNetBlock::kDown, i, i, k, channels, level.channels, level.down[static_cast<size_t>(k)],
                     k + 1 == layers && i + 1 < n});
      channels = level.channels;
      skips.insert(skips.end(), all.back().resamples ? 2 : 1, channels);
    }
  }
  if (c.has_middle)
    all.push_back({UNetBlock::kMiddle, n - 1, 0, 0, channels, channels, c.middle_blocks, false});
  for (int64_t i = 0; i < n; ++i) {
    const auto& level = c.levels[static_cast<size_t>(n - 1 - i)];
    const auto layers = std::ssize(level.up);
    for (int64_t k = 0; k < layers; ++k) {
      all.push_back({UNetBlock::kUp, n - 1 - i, i, k, channels + skips.back(), level.channels,
                     level.up[static_cast<size_t>(k)], k + 1 == layers && i + 1 < n});
      channels = level.channels;
      skips.pop_back();
    }
  }
  return all;
}

}  // namespace atelier::models
