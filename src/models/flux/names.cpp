#include "models/flux/names.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::models {
namespace {

struct Pair {
  const char *canonical, *stored;
};

// What stands outside of the blocks: canonical names are those of diffusers.
constexpr std::array<Pair, 9> kOuter{{{"x_embedder", "img_in"},
                                      {"context_embedder", "txt_in"},
                                      {"time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"},
                                      {"time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"},
                                      {"time_text_embed.text_embedder.linear_1", "vector_in.in_layer"},
                                      {"time_text_embed.text_embedder.linear_2", "vector_in.out_layer"},
                                      {"time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"},
                                      {"time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"},
                                      {"proj_out", "final_layer.linear"}}};

constexpr std::array<Pair, 12> kDoubleDiffusers{{{"image.mod", "norm1.linear"},
                                                 {"image.out", "attn.to_out.0"},
                                                 {"image.up", "ff.net.0.proj"},
                                                 {"image.down", "ff.net.2"},
                                                 {"image.norm_q", "attn.norm_q"},
                                                 {"image.norm_k", "attn.norm_k"},
                                                 {"text.mod", "norm1_context.linear"},
                                                 {"text.out", "attn.to_add_out"},
                                                 {"text.up", "ff_context.net.0.proj"},
                                                 {"text.down", "ff_context.net.2"},
                                                 {"text.norm_q", "attn.norm_added_q"},
                                                 {"text.norm_k", "attn.norm_added_k"}}};

constexpr std::array<Pair, 5> kSingleDiffusers{{{"mod", "norm.linear"},
                                                {"up", "proj_mlp"},
                                                {"out", "proj_out"},
                                                {"norm_q", "attn.norm_q"},
                                                {"norm_k", "attn.norm_k"}}};

// Under img_ and txt_.
constexpr std::array<Pair, 7> kHalfOriginal{{{"mod", "mod.lin"},
                                             {"qkv", "attn.qkv"},
                                             {"out", "attn.proj"},
                                             {"up", "mlp.0"},
                                             {"down", "mlp.2"},
                                             {"norm_q.weight", "attn.norm.query_norm.scale"},
                                             {"norm_k.weight", "attn.norm.key_norm.scale"}}};

constexpr std::array<Pair, 4> kSingleOriginal{{{"mod", "modulation.lin"},
                                               {"out", "linear2"},
                                               {"norm_q.weight", "norm.query_norm.scale"},
                                               {"norm_k.weight", "norm.key_norm.scale"}}};

}  // namespace

std::vector<weights::NameRule> names_flux_diffusers() {
  const std::string from = "transformer_blocks.{}.", single = "single_transformer_blocks.{}.";
  std::vector<weights::NameRule> names{{"norm_out.linear", {{"norm_out.linear"}}}};
  // Rules that change nothing: where other rules follow, these come first when a checkpoint is written.
  for (const auto& [canonical, _] : kOuter) names.push_back({canonical, {{canonical}}});
  for (const auto& [canonical, stored] : kDoubleDiffusers) {
    names.push_back({std::string("double.{}.") + canonical, {{from + stored}}});
  }
  names.push_back(
      {"double.{}.image.qkv", {{from + "attn.to_q"}, {from + "attn.to_k"}, {from + "attn.to_v"}}});
  names.push_back({"double.{}.text.qkv",
                   {{from + "attn.add_q_proj"}, {from + "attn.add_k_proj"}, {from + "attn.add_v_proj"}}});
  for (const auto& [canonical, stored] : kSingleDiffusers) {
    names.push_back({std::string("single.{}.") + canonical, {{single + stored}}});
  }
  names.push_back(
      {"single.{}.qkv", {{single + "attn.to_q"}, {single + "attn.to_k"}, {single + "attn.to_v"}}});
  return names;
}

std::vector<weights::NameRule> names_flux_original(int64_t width, std::string_view prefix) {
  const std::string before(prefix), single = before + "single_blocks.{}.";
  std::vector<weights::NameRule> names;
  for (const auto& [canonical, stored] : kOuter) names.push_back({canonical, {{before + stored}}});
  const std::string last = before + "final_layer.adaLN_modulation.1";  // shift, scale -> scale, shift
  names.push_back({"norm_out.linear", {{last, {width, width}}, {last, {0, width}}}});
  for (const auto& [side, stored_side] : {Pair{"image.", "img_"}, Pair{"text.", "txt_"}}) {
    for (const auto& [canonical, stored] : kHalfOriginal) {
      names.push_back({std::string("double.{}.") + side + canonical,
                       {{before + "double_blocks.{}." + stored_side + stored}}});
    }
  }
  for (const auto& [canonical, stored] : kSingleOriginal) {
    names.push_back({std::string("single.{}.") + canonical, {{single + stored}}});
  }
  names.push_back({"single.{}.qkv", {{single + "linear1", {0, 3 * width}}}});
  names.push_back({"single.{}.up", {{single + "linear1", {3 * width, 4 * width}}}});
  return names;
}

std::optional<FluxSizes> find_flux_original(const weights::WeightStore& store) {
  FluxSizes sizes;
  const auto begins = [&](std::string_view prefix) {
    return store.has(std::string(prefix) + "double_blocks.0.img_attn.qkv.weight");
  };
  if (begins("model.diffusion_model.")) {
    sizes.prefix = "model.diffusion_model.";
  } else if (!begins("")) {
    return std::nullopt;
  }
  const auto dim = [&](std::string_view name, size_t i) {
    const auto shape = store.shape(sizes.prefix + std::string(name));
    if (i >= shape.size()) {
      throw Error(Kind::kCheckpoint, str("a FLUX checkpoint in the original naming, but ", sizes.prefix, name,
                                         " is missing or misshapen; download the file again"));
    }
    return shape[i];
  };
  sizes.width = dim("img_in.weight", 0);
  sizes.in_channels = dim("img_in.weight", 1);
  sizes.text_width = dim("txt_in.weight", 1);
  sizes.pooled_width = dim("vector_in.in_layer.weight", 1);
  sizes.out_channels = dim("final_layer.linear.weight", 0);
  sizes.head_dim = dim("double_blocks.0.img_attn.norm.query_norm.scale", 0);
  sizes.guidance = store.has(sizes.prefix + "guidance_in.in_layer.weight");
  const auto count = [&](std::string_view blocks, std::string_view member) {
    int n = 0;
    while (store.has(str(sizes.prefix, blocks, ".", n, ".", member))) ++n;
    return n;
  };
  sizes.doubles = count("double_blocks", "img_attn.qkv.weight");
  sizes.singles = count("single_blocks", "linear1.weight");
  return sizes;
}

Json config_of_flux_file(const weights::WeightStore& file, const Json& like) {
  const auto found = find_flux_original(file);
  if (!found) throw Error(Kind::kCheckpoint, "the file holds no FLUX transformer in the original naming");
  Json config = like;
  config["num_attention_heads"] = found->width / found->head_dim;
  config["attention_head_dim"] = found->head_dim;
  config["in_channels"] = found->in_channels;
  config["num_layers"] = found->doubles;
  config["num_single_layers"] = found->singles;
  config["joint_attention_dim"] = found->text_width;
  config["pooled_projection_dim"] = found->pooled_width;
  config["guidance_embeds"] = found->guidance;
  return config;
}

}  // namespace atelier::models
