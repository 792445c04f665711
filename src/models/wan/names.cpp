#include "models/wan/names.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

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

// Sizes of a file in the original naming, behind whichever prefix it has.
class Sizes {
 public:
  explicit Sizes(const weights::WeightStore& file) : file_(file) {
    const auto fits = [&](const std::string& prefix) { return file.has(prefix + "head.modulation"); };
    const auto found = std::find_if(kPrefixes.begin(), kPrefixes.end(), fits);
    if (found == kPrefixes.end())
      throw Error(Kind::kCheckpoint, "the file holds no Wan transformer in the original naming");
    prefix_ = *found;
  }
  bool has(const std::string& name) const { return file_.has(prefix_ + name); }
  int64_t size(const std::string& name, size_t dim) const {
    const auto shape = file_.shape(prefix_ + name);
    if (dim < shape.size()) return shape[dim];
    throw Error(Kind::kCheckpoint, str("a Wan checkpoint in the original naming, but ", prefix_, name,
                                       " is missing or misshapen; download the file again"));
  }
  int count(const std::string& before, const char* after) const {
    int n = 0;
    while (has(str(before, n, after))) ++n;
    return n;
  }

 private:
  const weights::WeightStore& file_;
  std::string prefix_;
};

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

Json config_of_wan_file(const weights::WeightStore& file, const Json& like) {
  const Sizes sizes(file);
  for (const auto& [mark, what] : kOtherVariants) {
    if (sizes.has(mark))
      throw Error(Kind::kCheckpoint,
                  str("the file holds ", what, " (", mark, "), which this build does not have"));
  }
  const int64_t width = sizes.size("head.modulation", 2);
  const int64_t head = like.is_object() ? like.value("attention_head_dim", int64_t{128}) : 128;
  if (head < 1 || width % head != 0)
    throw Error(Kind::kCheckpoint, str("the file's ", width, " channels are no multiple of heads of ", head));
  Json config = like.is_object() ? like : Json::object();
  config["attention_head_dim"] = head;
  config["num_attention_heads"] = width / head;
  config["num_layers"] = sizes.count("blocks.", ".modulation");
  config["ffn_dim"] = sizes.size("blocks.0.ffn.0.weight", 0);
  config["text_dim"] = sizes.size("text_embedding.0.weight", 1);
  config["freq_dim"] = sizes.size("time_embedding.0.weight", 1);
  config["in_channels"] = sizes.size("patch_embedding.weight", 1);
  config["out_channels"] = sizes.size("head.head.weight", 0) / 4;
  const bool sees = sizes.has("img_emb.proj.1.weight"), is_steered = sizes.has("vace_patch_embedding.weight");
  config["image_dim"] = sees ? Json(sizes.size("img_emb.proj.1.weight", 1)) : Json();
  config["added_kv_proj_dim"] = sees ? Json(width) : Json();
  const bool has_positions = sizes.has("img_emb.emb_pos");
  config["pos_embed_seq_len"] = has_positions ? Json(sizes.size("img_emb.emb_pos", 1)) : Json();
  if (is_steered) {
    const int steered = sizes.count("vace_blocks.", ".modulation");
    const bool same =
        config.contains("vace_layers") && config["vace_layers"].size() == static_cast<size_t>(steered);
    if (!same) config["vace_layers"] = control_layers(config["num_layers"].get<int>(), std::max(steered, 1));
    config["vace_in_channels"] = sizes.size("vace_patch_embedding.weight", 1);
  }
  return config;
}

}  // namespace atelier::models
