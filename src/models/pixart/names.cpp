#include "models/pixart/names.h"

#include <string>

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

}  // namespace atelier::models
