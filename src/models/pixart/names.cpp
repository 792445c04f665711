#include "models/pixart/names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "models/file_sizes.h"

namespace atelier::models {
namespace {

struct Pair {
  const char *canonical, *stored;
};

// Outside of the blocks canonical names are those of diffusers.
constexpr Pair kOuter[] = {{"pos_embed.proj", "x_embedder.proj"},
                           {"adaln_single.emb.timestep_embedder.linear_1", "t_embedder.mlp.0"},
                           {"adaln_single.emb.timestep_embedder.linear_2", "t_embedder.mlp.2"},
                           {"adaln_single.emb.resolution_embedder.linear_1", "csize_embedder.mlp.0"},
                           {"adaln_single.emb.resolution_embedder.linear_2", "csize_embedder.mlp.2"},
                           {"adaln_single.emb.aspect_ratio_embedder.linear_1", "ar_embedder.mlp.0"},
                           {"adaln_single.emb.aspect_ratio_embedder.linear_2", "ar_embedder.mlp.2"},
                           {"adaln_single.linear", "t_block.1"},
                           {"caption_projection.linear_1", "y_embedder.y_proj.fc1"},
                           {"caption_projection.linear_2", "y_embedder.y_proj.fc2"},
                           {"proj_out", "final_layer.linear"},
                           {"scale_shift_table", "final_layer.scale_shift_table"}};

constexpr Pair kBlockDiffusers[] = {{"scale_shift_table", "scale_shift_table"},
                                    {"out", "attn1.to_out.0"},
                                    {"cross.q", "attn2.to_q"},
                                    {"cross.out", "attn2.to_out.0"},
                                    {"up", "ff.net.0.proj"},
                                    {"down", "ff.net.2"}};

constexpr Pair kBlockOriginal[] = {{"scale_shift_table", "scale_shift_table"},
                                   {"qkv", "attn.qkv"},
                                   {"out", "attn.proj"},
                                   {"cross.q", "cross_attn.q_linear"},
                                   {"cross.kv", "cross_attn.kv_linear"},
                                   {"cross.out", "cross_attn.proj"},
                                   {"up", "mlp.fc1"},
                                   {"down", "mlp.fc2"}};

// Tensors that tell the sizes.
struct Marks {
  std::string_view image_in, caption_in, out, sizes, block, bias, text;
};
constexpr Marks kDiffusersMarks{.image_in = "pos_embed.proj.weight",
                                .caption_in = "caption_projection.linear_1.weight",
                                .out = "proj_out.weight",
                                .sizes = "adaln_single.emb.resolution_embedder.linear_1.weight",
                                .block = "transformer_blocks.{}.scale_shift_table",
                                .bias = "transformer_blocks.0.attn1.to_q.bias",
                                .text = "transformer_blocks.0.attn2.to_k.weight"};
constexpr Marks kOriginalMarks{.image_in = "x_embedder.proj.weight",
                               .caption_in = "y_embedder.y_proj.fc1.weight",
                               .out = "final_layer.linear.weight",
                               .sizes = "csize_embedder.mlp.0.weight",
                               .block = "blocks.{}.scale_shift_table",
                               .bias = "blocks.0.attn.qkv.bias",
                               .text = "blocks.0.cross_attn.kv_linear.weight"};
// Of the original naming: a table of positions that is computed here, a row for each token of
// a usual picture.
constexpr std::string_view kPositions = "pos_embed";

}  // namespace

std::vector<weights::NameRule> names_pixart_diffusers() {
  const std::string to = "blocks.{}.", from = "transformer_blocks.{}.";
  std::vector<weights::NameRule> names;
  // Rules that change nothing: where other rules follow, these come first when a checkpoint is written.
  for (const auto& [canonical, _] : kOuter) names.push_back({canonical, {{canonical}}});
  for (const auto& [canonical, stored] : kBlockDiffusers)
    names.push_back({to + canonical, {{from + stored}}});
  names.push_back({to + "qkv", {{from + "attn1.to_q"}, {from + "attn1.to_k"}, {from + "attn1.to_v"}}});
  names.push_back({to + "cross.kv", {{from + "attn2.to_k"}, {from + "attn2.to_v"}}});
  return names;
}

std::vector<weights::NameRule> names_pixart_original(std::string_view prefix) {
  const std::string before(prefix);
  std::vector<weights::NameRule> names;
  for (const auto& [canonical, stored] : kOuter) names.push_back({canonical, {{before + stored}}});
  for (const auto& [canonical, stored] : kBlockOriginal) {
    names.push_back({std::string("blocks.{}.") + canonical, {{before + "blocks.{}." + stored}}});
  }
  return names;
}

Json config_of_pixart_file(const weights::WeightStore& store, const Json& like) {
  const FileSizes file(store, "a PixArt transformer");
  const bool is_original = file.has(kOriginalMarks.image_in);
  const Marks& marks = is_original ? kOriginalMarks : kDiffusersMarks;
  if (file.count(marks.block) == 0 || !file.has(marks.image_in)) {
    throw Error(Kind::kCheckpoint,
                "the file holds no PixArt transformer, neither in the original nor in diffusers' naming");
  }
  if (file.has("blocks.0.attn.sr.weight"))
    throw Error(Kind::kCheckpoint,
                "the file is a PixArt-Sigma with compressed keys and values, which is not drawn here");
  const int64_t width = file.size(marks.image_in, 0), side = file.size(marks.image_in, 2);
  const int64_t head_dim = std::max<int64_t>(like.value("attention_head_dim", int64_t{72}), 1);
  Json config = like;
  config["attention_head_dim"] = head_dim;
  config["num_attention_heads"] = width / head_dim;
  config["patch_size"] = side;
  config["in_channels"] = file.size(marks.image_in, 1);
  config["out_channels"] = file.size(marks.out, 0) / (side * side);
  config["num_layers"] = file.count(marks.block);
  config["attention_bias"] = file.has(marks.bias);
  config["cross_attention_dim"] = file.size(marks.text, 1);
  config["caption_channels"] = file.has(marks.caption_in) ? Json(file.size(marks.caption_in, 1)) : Json();
  config["use_additional_conditions"] = file.has(marks.sizes);
  if (!is_original || !file.has(kPositions)) return config;
  const auto tokens = static_cast<double>(file.size(kPositions, file.dimensions(kPositions) - 2));
  const int64_t sample = side * std::llround(std::sqrt(tokens));
  if (sample != like.value("sample_size", int64_t{128}))
    config.erase("interpolation_scale");  // follows from it
  config["sample_size"] = sample;
  return config;
}

}  // namespace atelier::models
