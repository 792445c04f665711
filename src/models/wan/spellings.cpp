// The names of Wan's transformer in the original repository (wan/modules/model.py), in diffusers
// (scripts/convert_wan_to_diffusers.py) and in the style of transformers' encoders that ComfyUI nodes
// for xDiT use.
#include "models/spellings.h"

#include <algorithm>
#include <array>

namespace atelier::models {
namespace {

struct Names {
  const char *diffusers, *native, *xdit;
};

constexpr std::array kOuterSpellings{
    Names{"patch_embedding", "patch_embedding", "embeddings.patch_embedding"},
    Names{"vace_patch_embedding", "vace_patch_embedding", "embeddings.vace_patch_embedding"},
    Names{"condition_embedder.text_embedder.linear_1", "text_embedding.0", "embeddings.text_embedding.fc1"},
    Names{"condition_embedder.text_embedder.linear_2", "text_embedding.2", "embeddings.text_embedding.fc2"},
    Names{"condition_embedder.time_embedder.linear_1", "time_embedding.0", "embeddings.time_embedding.fc1"},
    Names{"condition_embedder.time_embedder.linear_2", "time_embedding.2", "embeddings.time_embedding.fc2"},
    Names{"condition_embedder.time_proj", "time_projection.1", "embeddings.time_projection"},
    Names{"condition_embedder.image_embedder.norm1", "img_emb.proj.0", "embeddings.image_embedding.norm1"},
    Names{"condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1",
          "embeddings.image_embedding.fc1"},
    Names{"condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3", "embeddings.image_embedding.fc2"},
    Names{"condition_embedder.image_embedder.norm2", "img_emb.proj.4", "embeddings.image_embedding.norm2"},
    Names{"condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos",
          "embeddings.image_embedding.position_embedding"},
    Names{"proj_out", "head.head", "head.proj"},
    Names{"scale_shift_table", "head.modulation", "head.modulation"},
    // Marks that ComfyUI's 8-bit files carry as tensors.
    Names{"scaled_fp8", "scaled_fp8", "scaled_fp8"}};

constexpr std::array kBlocks{Names{"blocks.{}.", "blocks.{}.", "encoder.layers.{}."},
                             Names{"vace_blocks.{}.", "vace_blocks.{}.", "encoder.vace_layers.{}."}};

// The original repository counts its norms in another order than it uses them.
constexpr std::array kInBlockSpellings{
    Names{"scale_shift_table", "modulation", "modulation"},
    Names{"attn1.to_q", "self_attn.q", "self_attn.q_proj"},
    Names{"attn1.to_k", "self_attn.k", "self_attn.k_proj"},
    Names{"attn1.to_v", "self_attn.v", "self_attn.v_proj"},
    Names{"attn1.to_out.0", "self_attn.o", "self_attn.out_proj"},
    Names{"attn1.norm_q", "self_attn.norm_q", "self_attn.q_norm"},
    Names{"attn1.norm_k", "self_attn.norm_k", "self_attn.k_norm"},
    Names{"attn2.to_q", "cross_attn.q", "cross_attn.q_proj"},
    Names{"attn2.to_k", "cross_attn.k", "cross_attn.k_proj"},
    Names{"attn2.to_v", "cross_attn.v", "cross_attn.v_proj"},
    Names{"attn2.to_out.0", "cross_attn.o", "cross_attn.out_proj"},
    Names{"attn2.norm_q", "cross_attn.norm_q", "cross_attn.q_norm"},
    Names{"attn2.norm_k", "cross_attn.norm_k", "cross_attn.k_norm"},
    Names{"attn2.add_k_proj", "cross_attn.k_img", "cross_attn.k_img_proj"},
    Names{"attn2.add_v_proj", "cross_attn.v_img", "cross_attn.v_img_proj"},
    Names{"attn2.norm_added_k", "cross_attn.norm_k_img", "cross_attn.k_img_norm"},
    Names{"attn2.norm_added_q", "cross_attn.norm_q_img", "cross_attn.q_img_norm"},  // that nothing uses
    Names{"norm2", "norm3", "norm3"},
    Names{"ffn.net.0.proj", "ffn.0", "mlp.fc1"},
    Names{"ffn.net.2", "ffn.2", "mlp.fc2"},
    Names{"proj_in", "before_proj", "before_proj"},
    Names{"proj_out", "after_proj", "after_proj"}};

Spelling spelling(const char* tool, const char* mark, const char* Names::*names) {
  Spelling s{tool, mark, {}};
  for (const auto& n : kOuterSpellings) s.pairs.push_back({n.diffusers, n.*names});
  for (const auto& block : kBlocks) {
    for (const auto& n : kInBlockSpellings)
      s.pairs.push_back({std::string(block.diffusers) + n.diffusers, std::string(block.*names) + n.*names});
  }
  return s;
}

}  // namespace

std::optional<SpelledModel> wan_transformer_spellings(std::span<const std::string>) {
  return SpelledModel{"a Wan transformer",
                      {spelling("diffusers", "condition_embedder.time_proj.weight", &Names::diffusers),
                       spelling("native", "time_projection.1.weight", &Names::native),
                       spelling("xdit", "embeddings.time_projection.weight", &Names::xdit)}};
}

}  // namespace atelier::models
