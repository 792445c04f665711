#include "models/flux/names.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/file_sizes.h"

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

// Tensors that tell the sizes, in either naming.
struct Marks {
  std::string_view image_in, text_in, pooled_in, out, norm, doubles, singles, guidance;
};
constexpr Marks kOriginalMarks{.image_in = "img_in.weight",
                               .text_in = "txt_in.weight",
                               .pooled_in = "vector_in.in_layer.weight",
                               .out = "final_layer.linear.weight",
                               .norm = "double_blocks.0.img_attn.norm.query_norm.scale",
                               .doubles = "double_blocks.{}.img_attn.qkv.weight",
                               .singles = "single_blocks.{}.linear1.weight",
                               .guidance = "guidance_in.in_layer.weight"};
constexpr Marks kDiffusersMarks{.image_in = "x_embedder.weight",
                                .text_in = "context_embedder.weight",
                                .pooled_in = "time_text_embed.text_embedder.linear_1.weight",
                                .out = "proj_out.weight",
                                .norm = "transformer_blocks.0.attn.norm_q.weight",
                                .doubles = "transformer_blocks.{}.attn.to_q.weight",
                                .singles = "single_transformer_blocks.{}.attn.to_q.weight",
                                .guidance = "time_text_embed.guidance_embedder.linear_1.weight"};

FluxSizes sizes_of(const weights::WeightStore& store, const Marks& marks) {
  const FileSizes file(store, "a FLUX transformer");
  return {.width = file.size(marks.image_in, 0),
          .head_dim = file.size(marks.norm, 0),
          .in_channels = file.size(marks.image_in, 1),
          .out_channels = file.size(marks.out, 0),
          .text_width = file.size(marks.text_in, 1),
          .pooled_width = file.size(marks.pooled_in, 1),
          .doubles = file.count(marks.doubles),
          .singles = file.count(marks.singles),
          .guidance = file.has(marks.guidance)};
}

// Files whose names look like FLUX and that are something else.
void refuse_relatives(const weights::WeightStore& file) {
  struct Relative {
    std::string_view tensor, what;
  };
  constexpr Relative kRelatives[] = {
      {"redux_up.weight", "FLUX.1 Redux, which makes prompts of pictures and draws nothing by itself"},
      {"distilled_guidance_layer.in_proj.weight", "Chroma, whose modulation is another than FLUX.1's"},
      {"double_stream_modulation_img.lin.weight", "FLUX.2, another model than FLUX.1"},
      {"controlnet_x_embedder.weight", "a ControlNet for FLUX.1 and no model by itself"}};
  for (const auto& [tensor, what] : kRelatives) {
    if (file.has(tensor)) {
      throw Error(Kind::kCheckpoint, str("the file is ", what, "; name a FLUX.1 dev or schnell file"));
    }
  }
}

bool says(const weights::WeightStore& file, std::string_view word) {
  std::string title = file.title();
  for (char& c : title) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return title.find(word) != std::string::npos;
}

// Variants that take pictures besides the text have wider inputs, or (Kontext) differ in nothing
// but their name.
void refuse_variants(const weights::WeightStore& file, const FluxSizes& sizes) {
  std::string what;
  if (says(file, "kontext")) {
    what = "FLUX.1 Kontext, which edits a picture";
  } else if (sizes.in_channels == 6 * sizes.out_channels) {
    what = "FLUX.1 Fill, which takes a picture and a mask";
  } else if (sizes.in_channels == 2 * sizes.out_channels) {
    what = "FLUX.1 Depth or Canny, which takes a picture as control";
  } else if (sizes.in_channels != sizes.out_channels) {
    what = "a variant of FLUX.1 that is not known";
  }
  if (what.empty()) return;
  throw Error(Kind::kCheckpoint,
              str("the file is ", what, " (its input has ", sizes.in_channels, " channels, its output ",
                  sizes.out_channels, "), and only text to image is drawn here; name a FLUX.1 dev or ",
                  "schnell file"));
}

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

std::vector<weights::NameRule> names_flux_original(int64_t width) {
  const std::string single = "single_blocks.{}.";
  std::vector<weights::NameRule> names;
  for (const auto& [canonical, stored] : kOuter) names.push_back({canonical, {{stored}}});
  const std::string last = "final_layer.adaLN_modulation.1";  // shift, scale -> scale, shift
  names.push_back({"norm_out.linear", {{last, {width, width}}, {last, {0, width}}}});
  for (const auto& [side, stored_side] : {Pair{"image.", "img_"}, Pair{"text.", "txt_"}}) {
    for (const auto& [canonical, stored] : kHalfOriginal) {
      names.push_back({std::string("double.{}.") + side + canonical,
                       {{std::string("double_blocks.{}.") + stored_side + stored}}});
    }
  }
  for (const auto& [canonical, stored] : kSingleOriginal) {
    names.push_back({std::string("single.{}.") + canonical, {{single + stored}}});
  }
  names.push_back({"single.{}.qkv", {{single + "linear1", {0, 3 * width}}}});
  names.push_back({"single.{}.up", {{single + "linear1", {3 * width, 4 * width}}}});
  return names;
}

std::vector<weights::NameRule> names_flux_xlabs() {
  const std::string both = "double_blocks.{}.processor.", single = "single_blocks.{}.processor.";
  return {{"double.{}.image.qkv", {{both + "qkv_lora1"}}}, {"double.{}.image.out", {{both + "proj_lora1"}}},
          {"double.{}.text.qkv", {{both + "qkv_lora2"}}},  {"double.{}.text.out", {{both + "proj_lora2"}}},
          {"single.{}.qkv", {{single + "qkv"}}},           {"single.{}.out", {{single + "proj"}}}};
}

std::optional<FluxSizes> find_flux(const weights::WeightStore& store) {
  if (store.has("double_blocks.0.img_attn.qkv.weight")) return sizes_of(store, kOriginalMarks);
  if (store.has("transformer_blocks.0.attn.to_q.weight") && store.has(kDiffusersMarks.image_in) &&
      store.has(kDiffusersMarks.text_in)) {
    return sizes_of(store, kDiffusersMarks);
  }
  return std::nullopt;
}

Json config_of_flux_file(const weights::WeightStore& file, const Json& like) {
  refuse_relatives(file);
  const auto found = find_flux(file);
  if (!found) {
    throw Error(Kind::kCheckpoint,
                "the file holds no FLUX transformer, neither in the original nor in diffusers' naming");
  }
  refuse_variants(file, *found);
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
