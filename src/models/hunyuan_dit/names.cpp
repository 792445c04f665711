#include "models/hunyuan_dit/names.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "models/file_sizes.h"
#include "models/hunyuan_dit/config.h"

namespace atelier::models {
namespace {

using weights::NameRule;

struct Pair {
  const char *canonical, *stored;
};

// What stands outside of the blocks.
constexpr std::array kOuter{Pair{"pos_embed.proj", "x_embedder.proj"},
                            Pair{"time_extra_emb.timestep_embedder.linear_1", "t_embedder.mlp.0"},
                            Pair{"time_extra_emb.timestep_embedder.linear_2", "t_embedder.mlp.2"},
                            Pair{"time_extra_emb.pooler", "pooler"},
                            Pair{"time_extra_emb.extra_embedder.linear_1", "extra_embedder.0"},
                            Pair{"time_extra_emb.extra_embedder.linear_2", "extra_embedder.2"},
                            Pair{"time_extra_emb.style_embedder", "style_embedder"},
                            Pair{"text_embedder.linear_1", "mlp_t5.0"},
                            Pair{"text_embedder.linear_2", "mlp_t5.2"},
                            Pair{"text_embedding_padding", "text_embedding_padding"},
                            Pair{"proj_out", "final_layer.linear"}};

constexpr std::array kInBlock{Pair{"norm1.norm", "norm1"},
                              Pair{"norm1.linear", "default_modulation.1"},
                              Pair{"skip_norm", "skip_norm"},
                              Pair{"skip_linear", "skip_linear"},
                              Pair{"attn1.qkv", "attn1.Wqkv"},
                              Pair{"attn1.norm_q", "attn1.q_norm"},
                              Pair{"attn1.norm_k", "attn1.k_norm"},
                              Pair{"attn1.to_out.0", "attn1.out_proj"},
                              Pair{"attn2.to_q", "attn2.q_proj"},
                              Pair{"attn2.kv", "attn2.kv_proj"},
                              Pair{"attn2.norm_q", "attn2.q_norm"},
                              Pair{"attn2.norm_k", "attn2.k_norm"},
                              Pair{"attn2.to_out.0", "attn2.out_proj"},
                              Pair{"ff.net.0.proj", "mlp.fc1"},
                              Pair{"ff.net.2", "mlp.fc2"}};

// Of a config that was read off a file in the original naming: its norms of blocks have each other's names.
constexpr const char* kSwappedNorms = "_swapped_norms";

// Tensors that tell the sizes.
struct Marks {
  std::string_view image_in, block, query, norm, text_in, t5_in, pooled, up, sizes;
};
constexpr std::string_view kPadding = "text_embedding_padding";
constexpr Marks kDiffusersMarks{.image_in = "pos_embed.proj.weight",
                                .block = "blocks.{}.attn1.to_q.weight",
                                .query = "time_extra_emb.pooler.positional_embedding",
                                .norm = "blocks.0.attn1.norm_q.weight",
                                .text_in = "blocks.0.attn2.to_k.weight",
                                .t5_in = "text_embedder.linear_1.weight",
                                .pooled = "time_extra_emb.pooler.c_proj.weight",
                                .up = "blocks.0.ff.net.0.proj.weight",
                                .sizes = "time_extra_emb.style_embedder.weight"};
constexpr Marks kOriginalMarks{.image_in = "x_embedder.proj.weight",
                               .block = "blocks.{}.attn1.Wqkv.weight",
                               .query = "pooler.positional_embedding",
                               .norm = "blocks.0.attn1.q_norm.weight",
                               .text_in = "blocks.0.attn2.kv_proj.weight",
                               .t5_in = "mlp_t5.0.weight",
                               .pooled = "pooler.c_proj.weight",
                               .up = "blocks.0.mlp.fc1.weight",
                               .sizes = "style_embedder.weight"};

void add_original(const HunyuanConfig& c, std::vector<NameRule>& names) {
  for (const auto& [canonical, stored] : kOuter) names.push_back({canonical, {{stored}}});
  for (const auto& [canonical, stored] : kInBlock)
    names.push_back({str("blocks.{}.", canonical), {{str("blocks.{}.", stored)}}});
  const std::string last = "final_layer.adaLN_modulation.1";  // shift, scale
  names.push_back({"norm_out.linear", {{last, {c.width, c.width}}, {last, {0, c.width}}}});
}

}  // namespace

std::vector<NameRule> names_hunyuan_dit(const Json& config) {
  const std::string self = "blocks.{}.attn1.", cross = "blocks.{}.attn2.";
  // Those that change nothing come before what follows, so that a checkpoint is written in diffusers' names.
  std::vector<NameRule> names{{self + "qkv", {{self + "to_q"}, {self + "to_k"}, {self + "to_v"}}},
                              {cross + "kv", {{cross + "to_k"}, {cross + "to_v"}}},
                              {"norm_out.linear", {{"norm_out.linear"}}}};
  for (const auto& [canonical, _] : kOuter) names.push_back({canonical, {{canonical}}});
  for (const auto& [canonical, _] : kInBlock) {
    const auto name = str("blocks.{}.", canonical);
    if (name != self + "qkv" && name != cross + "kv") names.push_back({name, {{name}}});
  }
  const bool is_swapped = config.value(kSwappedNorms, false);
  names.push_back({"blocks.{}.norm2", {{is_swapped ? "blocks.{}.norm3" : "blocks.{}.norm2"}}});
  names.push_back({"blocks.{}.norm3", {{is_swapped ? "blocks.{}.norm2" : "blocks.{}.norm3"}}});
  add_original(HunyuanConfig(config), names);
  return names;
}

Json config_of_hunyuan_dit_file(const weights::WeightStore& store, const Json& like) {
  const FileSizes file(store, "a HunyuanDiT transformer");
  const Marks& marks = file.has(kOriginalMarks.image_in) ? kOriginalMarks : kDiffusersMarks;
  if (!file.has(marks.image_in) || file.count(marks.block) == 0) {
    throw Error(Kind::kCheckpoint,
                "the file holds no HunyuanDiT transformer, neither in the original nor in diffusers' naming");
  }
  const int64_t width = file.size(marks.image_in, 0), head_dim = file.size(marks.norm, 0);
  const int64_t t5_tokens = file.size(marks.query, 0) - 1;
  Json config = like;
  config[kSwappedNorms] = &marks == &kOriginalMarks;
  config["hidden_size"] = width;
  config["attention_head_dim"] = head_dim;
  config["num_attention_heads"] = width / head_dim;
  config["patch_size"] = file.size(marks.image_in, 2);
  config["in_channels"] = file.size(marks.image_in, 1);
  config["num_layers"] = file.count(marks.block);
  config["cross_attention_dim"] = file.size(marks.text_in, 1);
  config["cross_attention_dim_t5"] = file.size(marks.t5_in, 1);
  config["pooled_projection_dim"] = file.size(marks.pooled, 0);
  config["text_len_t5"] = t5_tokens;
  config["text_len"] = file.size(kPadding, 0) - t5_tokens;
  config["use_style_cond_and_image_meta_size"] = file.has(marks.sizes);
  const int64_t inner = file.size(marks.up, 0);
  const double ratio = like.value("mlp_ratio", 4.0);
  if (static_cast<int64_t>(static_cast<double>(width) * ratio) != inner)
    config["mlp_ratio"] = (static_cast<double>(inner) + 0.5) / static_cast<double>(width);
  return config;
}

}  // namespace atelier::models
