#include "models/wan/names.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "models/file_sizes.h"

namespace atelier::models {
namespace {

using weights::NameRule;

constexpr std::array kPrefixes{"", "model.diffusion_model.", "diffusion_model.", "model."};

// Outside of the blocks canonical names are those of diffusers.
struct Outer {
  const char *canonical, *original;
};
constexpr std::array kOuter{Outer{"patch_embedding", "patch_embedding"},
                            Outer{"vace_patch_embedding", "vace_patch_embedding"},
                            Outer{"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
                            Outer{"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
                            Outer{"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
                            Outer{"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
                            Outer{"condition_embedder.time_proj", "time_projection.1"},
                            Outer{"condition_embedder.image_embedder.norm1", "img_emb.proj.0"},
                            Outer{"condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"},
                            Outer{"condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"},
                            Outer{"condition_embedder.image_embedder.norm2", "img_emb.proj.4"},
                            Outer{"condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"},
                            Outer{"proj_out", "head.head"},
                            Outer{"scale_shift_table", "head.modulation"}};

// Below a block. The original repository counts its norms in another order than it uses them.
struct InBlock {
  const char *canonical, *diffusers, *original;
};
constexpr std::array kInBlock{InBlock{"mod", "scale_shift_table", "modulation"},
                              InBlock{"self.out", "attn1.to_out.0", "self_attn.o"},
                              InBlock{"self.norm_q", "attn1.norm_q", "self_attn.norm_q"},
                              InBlock{"self.norm_k", "attn1.norm_k", "self_attn.norm_k"},
                              InBlock{"cross.norm", "norm2", "norm3"},
                              InBlock{"cross.q", "attn2.to_q", "cross_attn.q"},
                              InBlock{"cross.out", "attn2.to_out.0", "cross_attn.o"},
                              InBlock{"cross.norm_q", "attn2.norm_q", "cross_attn.norm_q"},
                              InBlock{"cross.norm_k", "attn2.norm_k", "cross_attn.norm_k"},
                              InBlock{"cross.norm_image_k", "attn2.norm_added_k", "cross_attn.norm_k_img"},
                              InBlock{"up", "ffn.net.0.proj", "ffn.0"},
                              InBlock{"down", "ffn.net.2", "ffn.2"},
                              InBlock{"control_in", "proj_in", "before_proj"},
                              InBlock{"control_out", "proj_out", "after_proj"}};

struct Fused {
  const char* canonical;
  std::array<const char*, 3> diffusers, original;  // null: two parts
};
constexpr std::array kFused{
    Fused{"self.qkv",
          {"attn1.to_q", "attn1.to_k", "attn1.to_v"},
          {"self_attn.q", "self_attn.k", "self_attn.v"}},
    Fused{"cross.kv", {"attn2.to_k", "attn2.to_v", nullptr}, {"cross_attn.k", "cross_attn.v", nullptr}},
    Fused{"cross.image_kv",
          {"attn2.add_k_proj", "attn2.add_v_proj", nullptr},
          {"cross_attn.k_img", "cross_attn.v_img", nullptr}}};

// Blocks of the model and of VACE, under the same names.
void add_blocks(std::vector<NameRule>& names, const char* blocks, const std::string& before,
                bool is_original) {
  const std::string ours = std::string(blocks) + ".{}.", theirs = before + ours;
  for (const auto& n : kInBlock)
    names.push_back({ours + n.canonical, {{theirs + (is_original ? n.original : n.diffusers)}}});
  for (const auto& n : kFused) {
    NameRule rule{ours + n.canonical, {}};
    for (const char* part : is_original ? n.original : n.diffusers) {
      if (part) rule.parts.push_back({theirs + part});
    }
    names.push_back(std::move(rule));
  }
}

// Tensors that tell the sizes.
struct Marks {
  std::string last, block, control_block, text_in, time_in, up, image_in, out, seen, positions;
};

// Either naming, behind a prefix.
Marks marks_of(const char* Outer::*outer, const char* InBlock::*in_block, const std::string& prefix) {
  const auto name = [&](std::string_view canonical) {
    const auto found =
        std::find_if(kOuter.begin(), kOuter.end(), [&](const Outer& o) { return o.canonical == canonical; });
    return prefix + (*found).*outer;
  };
  const auto block = [&](const char* before, std::string_view canonical) {
    const auto found = std::find_if(kInBlock.begin(), kInBlock.end(),
                                    [&](const InBlock& n) { return n.canonical == canonical; });
    return prefix + before + (*found).*in_block;
  };
  return {.last = name("scale_shift_table"),
          .block = block("blocks.{}.", "mod"),
          .control_block = block("vace_blocks.{}.", "mod"),
          .text_in = name("condition_embedder.text_embedder.linear_1") + ".weight",
          .time_in = name("condition_embedder.time_embedder.linear_1") + ".weight",
          .up = block("blocks.0.", "up") + ".weight",
          .image_in = name("patch_embedding") + ".weight",
          .out = name("proj_out") + ".weight",
          .seen = name("condition_embedder.image_embedder.ff.net.0.proj") + ".weight",
          .positions = name("condition_embedder.image_embedder.pos_embed")};
}

// What the file is named by, and the prefix of all its names.
std::pair<Marks, std::string> find_marks(const FileSizes& file) {
  for (const char* prefix : kPrefixes) {
    for (const auto& marks : {marks_of(&Outer::original, &InBlock::original, prefix),
                              marks_of(&Outer::canonical, &InBlock::diffusers, prefix)}) {
      if (file.has(marks.last) && file.has(marks.time_in)) return {marks, prefix};
    }
  }
  throw Error(Kind::kCheckpoint,
              "the file holds no Wan transformer, neither in the original nor in diffusers' naming");
}

// Models that grew out of Wan and have parts of their own: {mark, what it is}.
constexpr std::array kOtherVariants{
    std::pair{"control_adapter.conv.weight", "a camera control model"},
    std::pair{"casual_audio_encoder.encoder.final_linear.weight", "a speech model"},
    std::pair{"audio_proj.audio_proj_glob_1.layer.bias", "a speech model"},
    std::pair{"face_adapter.fuser_blocks.0.k_norm.weight", "an animation model"},
    std::pair{"ref_conv.weight", "a model with a reference convolution"},
    std::pair{"patch_embedding_add.weight", "a model with added controls"}};

// VACE blocks of the published models are spread evenly.
Json control_layers(int blocks, int steered) {
  Json layers = Json::array();
  for (int i = 0; i < steered; ++i) layers.push_back(i * (blocks / steered));
  return layers;
}

}  // namespace

std::vector<NameRule> names_wan_diffusers() {
  std::vector<NameRule> names;
  // Rules that change nothing: where other rules follow, these come first when a checkpoint is written.
  for (const auto& n : kOuter) names.push_back({n.canonical, {{n.canonical}}});
  for (const char* blocks : {"blocks", "vace_blocks"}) add_blocks(names, blocks, "", false);
  return names;
}

std::vector<NameRule> names_wan_original(std::string_view prefix) {
  const std::string before(prefix);
  std::vector<NameRule> names;
  for (const auto& n : kOuter) names.push_back({n.canonical, {{before + n.original}}});
  for (const char* blocks : {"blocks", "vace_blocks"}) add_blocks(names, blocks, before, true);
  return names;
}

std::vector<NameRule> names_wan() {
  auto names = names_wan_diffusers();
  for (const char* prefix : kPrefixes) {
    for (auto& rule : names_wan_original(prefix)) names.push_back(std::move(rule));
  }
  return names;
}

Json config_of_wan_file(const weights::WeightStore& store, const Json& like) {
  const FileSizes file(store, "a Wan transformer");
  const auto [marks, prefix] = find_marks(file);
  for (const auto& [mark, what] : kOtherVariants) {
    if (file.has(prefix + mark))
      throw Error(Kind::kCheckpoint,
                  str("the file holds ", what, " (", mark, "), which this build does not have"));
  }
  const int64_t width = file.size(marks.last, 2);
  const int64_t head = like.is_object() ? like.value("attention_head_dim", int64_t{128}) : 128;
  if (head < 1 || width % head != 0)
    throw Error(Kind::kCheckpoint, str("the file's ", width, " channels are no multiple of heads of ", head));
  Json config = like.is_object() ? like : Json::object();
  config["attention_head_dim"] = head;
  config["num_attention_heads"] = width / head;
  config["num_layers"] = file.count(marks.block);
  config["ffn_dim"] = file.size(marks.up, 0);
  config["text_dim"] = file.size(marks.text_in, 1);
  config["freq_dim"] = file.size(marks.time_in, 1);
  config["in_channels"] = file.size(marks.image_in, 1);
  config["out_channels"] = file.size(marks.out, 0) / 4;
  const bool sees = file.has(marks.seen);
  config["image_dim"] = sees ? Json(file.size(marks.seen, 1)) : Json();
  config["added_kv_proj_dim"] = sees ? Json(width) : Json();
  const bool has_positions = file.has(marks.positions);
  config["pos_embed_seq_len"] = has_positions ? Json(file.size(marks.positions, 1)) : Json();
  const std::string control_in = prefix + "vace_patch_embedding.weight";  // in both namings
  if (file.has(control_in)) {
    const int steered = file.count(marks.control_block);
    const bool same =
        config.contains("vace_layers") && config["vace_layers"].size() == static_cast<size_t>(steered);
    if (!same) config["vace_layers"] = control_layers(config["num_layers"].get<int>(), std::max(steered, 1));
    config["vace_in_channels"] = file.size(control_in, 1);
  }
  return config;
}

}  // namespace atelier::models
