#include "models/sd3/names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "models/file_sizes.h"
#include "models/sd3/config.h"

namespace atelier::models {
namespace {

using weights::NameRule;

constexpr std::array<const char*, 2> kPrefixes{"", "model.diffusion_model."};

struct Names {
  const char *canonical, *original;
};

// What stands outside of the blocks: canonical names are those of diffusers.
constexpr std::array kOuter{Names{"pos_embed.proj", "x_embedder.proj"},
                            Names{"pos_embed.pos_embed", "pos_embed"},
                            Names{"context_embedder", "context_embedder"},
                            Names{"time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"},
                            Names{"time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"},
                            Names{"time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"},
                            Names{"time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"},
                            Names{"proj_out", "final_layer.linear"}};

// Below a block.
struct InBlock {
  const char *canonical, *diffusers, *original;
};
constexpr std::array kInBlock{InBlock{"image.mod", "norm1.linear", "x_block.adaLN_modulation.1"},
                              InBlock{"image.out", "attn.to_out.0", "x_block.attn.proj"},
                              InBlock{"image.norm_q", "attn.norm_q", "x_block.attn.ln_q"},
                              InBlock{"image.norm_k", "attn.norm_k", "x_block.attn.ln_k"},
                              InBlock{"image.up", "ff.net.0.proj", "x_block.mlp.fc1"},
                              InBlock{"image.down", "ff.net.2", "x_block.mlp.fc2"},
                              InBlock{"image2.out", "attn2.to_out.0", "x_block.attn2.proj"},
                              InBlock{"image2.norm_q", "attn2.norm_q", "x_block.attn2.ln_q"},
                              InBlock{"image2.norm_k", "attn2.norm_k", "x_block.attn2.ln_k"},
                              InBlock{"text.mod", "norm1_context.linear", "context_block.adaLN_modulation.1"},
                              InBlock{"text.out", "attn.to_add_out", "context_block.attn.proj"},
                              InBlock{"text.norm_q", "attn.norm_added_q", "context_block.attn.ln_q"},
                              InBlock{"text.norm_k", "attn.norm_added_k", "context_block.attn.ln_k"},
                              InBlock{"text.up", "ff_context.net.0.proj", "context_block.mlp.fc1"},
                              InBlock{"text.down", "ff_context.net.2", "context_block.mlp.fc2"}};

void add_diffusers(std::vector<NameRule>& names) {
  const std::string ours = "joint.{}.", theirs = "transformer_blocks.{}.";
  // Rules that change nothing: where other rules follow, these come first when a checkpoint is written.
  for (const auto& [canonical, _] : kOuter) names.push_back({canonical, {{canonical}}});
  names.push_back({"norm_out.linear", {{"norm_out.linear"}}});
  for (const auto& n : kInBlock) names.push_back({ours + n.canonical, {{theirs + n.diffusers}}});
  const auto fused = [&](const char* canonical, std::initializer_list<const char*> parts) {
    NameRule rule{ours + canonical, {}};
    for (const char* part : parts) rule.parts.push_back({theirs + part});
    names.push_back(std::move(rule));
  };
  fused("image.qkv", {"attn.to_q", "attn.to_k", "attn.to_v"});
  fused("image2.qkv", {"attn2.to_q", "attn2.to_k", "attn2.to_v"});
  fused("text.qkv", {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"});
  fused("text.kv", {"attn.add_k_proj", "attn.add_v_proj"});
}

void add_original(std::vector<NameRule>& names, const Sd3Config& c, const std::string& before) {
  const std::string theirs = before + "joint_blocks.{}.";
  for (const auto& [canonical, stored] : kOuter) names.push_back({canonical, {{before + stored}}});
  const auto swapped = [&](const std::string& canonical, const std::string& stored) {  // shift, scale
    names.push_back({canonical, {{stored, {c.width, c.width}}, {stored, {0, c.width}}}});
  };
  swapped("norm_out.linear", before + "final_layer.adaLN_modulation.1");
  const auto last = std::to_string(c.layers - 1);
  swapped("joint." + last + ".text.mod",
          before + "joint_blocks." + last + ".context_block.adaLN_modulation.1");
  for (const auto& n : kInBlock)
    names.push_back({std::string("joint.{}.") + n.canonical, {{theirs + n.original}}});
  names.push_back({"joint.{}.image.qkv", {{theirs + "x_block.attn.qkv"}}});
  names.push_back({"joint.{}.image2.qkv", {{theirs + "x_block.attn2.qkv"}}});
  names.push_back({"joint.{}.text.qkv", {{theirs + "context_block.attn.qkv"}}});
  names.push_back({"joint.{}.text.kv", {{theirs + "context_block.attn.qkv", {c.width, 2 * c.width}}}});
}

// Tensors that tell the sizes, in either naming; "{}" is a block.
struct Marks {
  std::string image_in, positions, text_in, pooled_in, out, qkv, qkv2, norm;
};
const Marks& diffusers_marks() {
  static const Marks marks{.image_in = "pos_embed.proj.weight",
                           .positions = "pos_embed.pos_embed",
                           .text_in = "context_embedder.weight",
                           .pooled_in = "time_text_embed.text_embedder.linear_1.weight",
                           .out = "proj_out.weight",
                           .qkv = "transformer_blocks.{}.attn.to_q.weight",
                           .qkv2 = "transformer_blocks.{}.attn2.to_q.weight",
                           .norm = "transformer_blocks.0.attn.norm_q.weight"};
  return marks;
}
Marks original_marks(const std::string& before) {
  return {.image_in = before + "x_embedder.proj.weight",
          .positions = before + "pos_embed",
          .text_in = before + "context_embedder.weight",
          .pooled_in = before + "y_embedder.mlp.0.weight",
          .out = before + "final_layer.linear.weight",
          .qkv = before + "joint_blocks.{}.x_block.attn.qkv.weight",
          .qkv2 = before + "joint_blocks.{}.x_block.attn2.qkv.weight",
          .norm = before + "joint_blocks.0.x_block.attn.ln_q.weight"};
}

std::string in_block(std::string_view pattern, int i) {
  return weights::fill(pattern, {{std::to_string(i)}, {}});
}

Marks marks_of(const FileSizes& file) {
  for (const char* prefix : kPrefixes) {
    if (auto marks = original_marks(prefix); file.has(in_block(marks.qkv, 0))) return marks;
  }
  // FLUX's transformer has blocks of the same names, but no positions
  const auto& marks = diffusers_marks();
  if (file.has(in_block(marks.qkv, 0)) && file.has(marks.image_in)) return marks;
  throw Error(
      Kind::kCheckpoint,
      "the file holds no Stable Diffusion 3 transformer, neither in the original nor in diffusers' naming");
}

}  // namespace

std::vector<NameRule> names_sd3(const Json& config) {
  const Sd3Config c(config);
  std::vector<NameRule> names;
  add_diffusers(names);
  for (const char* prefix : kPrefixes) add_original(names, c, prefix);
  return names;
}

std::vector<std::string_view> ignorable_sd3() {
  return {"*.attn.add_q_proj.*", "*.attn.norm_added_q.*", "*.context_block.attn.ln_q.*",
          "first_stage_model.*", "text_encoders.*"};
}

Json config_of_sd3_file(const weights::WeightStore& store, const Json& like) {
  const FileSizes file(store, "a Stable Diffusion 3 transformer");
  const Marks marks = marks_of(file);
  const int64_t width = file.size(marks.image_in, 0), side = file.size(marks.image_in, 2);
  const bool is_normed = file.has(marks.norm);
  Json config = like;
  const int64_t head_dim =
      is_normed ? file.size(marks.norm, 0) : like.value("attention_head_dim", int64_t{64});
  config["attention_head_dim"] = head_dim;
  config["num_attention_heads"] = width / std::max<int64_t>(head_dim, 1);
  config["qk_norm"] = is_normed ? Json("rms_norm") : Json();
  config["patch_size"] = side;
  config["in_channels"] = file.size(marks.image_in, 1);
  config["out_channels"] = file.size(marks.out, 0) / (side * side);
  config["joint_attention_dim"] = file.size(marks.text_in, 1);
  config["caption_projection_dim"] = file.size(marks.text_in, 0);
  config["pooled_projection_dim"] = file.size(marks.pooled_in, 1);
  config["pos_embed_max_size"] = std::llround(std::sqrt(static_cast<double>(file.size(marks.positions, 1))));
  config["num_layers"] = file.count(marks.qkv);
  Json dual = Json::array();
  for (int i = 0; i < file.count(marks.qkv); ++i) {
    if (file.has(in_block(marks.qkv2, i))) dual.push_back(i);
  }
  config["dual_attention_layers"] = dual;
  return config;
}

}  // namespace atelier::models
