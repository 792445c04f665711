// Denoisers that come in one file without a config, in the naming of their authors: what diffusers'
// conversion scripts do, backwards, must read as the same model, and its sizes must be found.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "models/family.h"
#include "models/sdxl/config.h"
#include "nn/single_rank.h"
#include "nn/testing.h"
#include "weights/save.h"
#include "weights/tensors.h"

namespace atelier::models {
namespace {

using nn::error_of;
using nn::has;
using weights::Tensors;
using weights::WeightStore;

using Pairs =
    std::vector<std::pair<std::string, std::string>>;  // diffusers' beginnings of names, the authors'

// Random weights in diffusers' names.
struct Folder {
  const Family& family;
  Json config;
  TemporaryFolder place;
  std::unique_ptr<WeightStore> store;
  std::vector<weights::ManifestEntry> asked;

  Folder(const char* pipeline, const Json& c) : family(*find_family(pipeline)), config(c) {
    const auto random = WeightStore::dummy(5);
    asked = tensors_with(config, *random);
    weights::save_checkpoint(*random, family.names(config), {.folder = place.path(), .dtype = at::kFloat});
    store = WeightStore::open(place.path());
    store->adopt(family.names(config));
  }
  std::vector<weights::ManifestEntry> tensors_with(const Json& c, const WeightStore& from) const {
    nn::SingleRank one;
    const Range all{0, family.facts(c).blocks};
    family.build(c, one.builder(from, at::TensorOptions(at::kFloat).device(at::kMeta)), std::span(&all, 1));
    return from.manifest();
  }
  Tensors tensors() const { return weights::read_tensors(place / "diffusion_pytorch_model.safetensors"); }

  std::string refusal(const Tensors& tensors, const Json& like) const {
    const TemporaryFolder folder;
    weights::write_tensors(folder / "a.safetensors", tensors);
    const auto file = WeightStore::open(folder / "a.safetensors");
    return error_of(Kind::kCheckpoint, [&] { family.config_of_file(*file, like); });
  }
  // A file of these tensors is this model, whatever the sizes of another one.
  void expect_same(const Tensors& tensors, const Json& like) const {
    const TemporaryFolder folder;
    weights::write_tensors(folder / "a.safetensors", tensors);
    const auto file = WeightStore::open(folder / "a.safetensors");
    const Json found = family.config_of_file(*file, like);
    file->adopt(family.names(found));
    std::map<std::string, std::vector<int64_t>> wanted, got;
    for (const auto& t : asked) wanted[t.name] = t.shape;
    for (const auto& t : tensors_with(found, *WeightStore::dummy(5))) got[t.name] = t.shape;
    EXPECT_EQ(wanted, got) << found.dump();
    for (const auto& [name, shape] : asked) {
      auto ours = at::empty(shape), theirs = at::empty(shape);
      store->read_into(ours, name, shape, {}, {});
      file->read_into(theirs, name, shape, {}, {});
      EXPECT_TRUE(at::equal(ours, theirs)) << name;
    }
    file->check(family.ignorable);
  }
};

std::string renamed(const std::string& name, const Pairs& pairs) {
  for (const auto& [from, to] : pairs) {
    if (name.starts_with(from)) return to + name.substr(from.size());
  }
  ADD_FAILURE() << name;
  return name;
}

// q, k and v (or k and v) of a layer become one tensor.
void fuse(Tensors& all, const std::string& layer, const std::vector<std::string>& parts,
          const std::string& to) {
  for (const char* end : {".weight", ".bias"}) {
    std::vector<at::Tensor> rows;
    for (const auto& part : parts) {
      const auto at = all.find(layer + part + end);
      if (at == all.end()) return;
      rows.push_back(at->second);
      all.erase(at);
    }
    all[layer + to + end] = at::cat(rows);
  }
}

at::Tensor swapped(const at::Tensor& t) {
  const auto halves = t.chunk(2);
  return at::cat({halves[1], halves[0]});
}

Json hunyuan_config(bool has_sizes) {
  return {{"num_attention_heads", 3},
          {"attention_head_dim", 8},
          {"hidden_size", 24},
          {"in_channels", 4},
          {"num_layers", 6},
          {"mlp_ratio", 4.3637},
          {"cross_attention_dim", 12},
          {"cross_attention_dim_t5", 16},
          {"pooled_projection_dim", 10},
          {"text_len", 5},
          {"text_len_t5", 7},
          {"use_style_cond_and_image_meta_size", has_sizes}};
}

// convert_hunyuandit_to_diffusers.py
Tensors tencent(const Folder& folder, const std::string& prefix = "") {
  auto all = folder.tensors();
  for (int i = 0; i < 6; ++i) {
    const auto at = str("blocks.", i, ".");
    fuse(all, at + "attn1.", {"to_q", "to_k", "to_v"}, "Wqkv");
    fuse(all, at + "attn2.", {"to_k", "to_v"}, "kv_proj");
  }
  Tensors out;
  for (const auto& [name, tensor] : all) {
    if (name.starts_with("blocks.")) {
      const auto block = name.substr(0, name.find('.', 7) + 1), rest = name.substr(block.size());
      out[prefix + block +
          renamed(rest, {{"norm1.norm", "norm1"},
                         {"norm1.linear", "default_modulation.1"},
                         {"norm2", "norm3"},
                         {"norm3", "norm2"},
                         {"attn1.norm_q", "attn1.q_norm"},
                         {"attn1.norm_k", "attn1.k_norm"},
                         {"attn1.to_out.0", "attn1.out_proj"},
                         {"attn2.to_q", "attn2.q_proj"},
                         {"attn2.norm_q", "attn2.q_norm"},
                         {"attn2.norm_k", "attn2.k_norm"},
                         {"attn2.to_out.0", "attn2.out_proj"},
                         {"ff.net.0.proj", "mlp.fc1"},
                         {"ff.net.2", "mlp.fc2"},
                         {"", ""}})] = tensor;
      continue;
    }
    out[prefix + renamed(name, {{"pos_embed.", "x_embedder."},
                                {"time_extra_emb.timestep_embedder.linear_1", "t_embedder.mlp.0"},
                                {"time_extra_emb.timestep_embedder.linear_2", "t_embedder.mlp.2"},
                                {"time_extra_emb.extra_embedder.linear_1", "extra_embedder.0"},
                                {"time_extra_emb.extra_embedder.linear_2", "extra_embedder.2"},
                                {"time_extra_emb.", ""},
                                {"text_embedder.linear_1", "mlp_t5.0"},
                                {"text_embedder.linear_2", "mlp_t5.2"},
                                {"norm_out.linear", "final_layer.adaLN_modulation.1"},
                                {"proj_out", "final_layer.linear"},
                                {"", ""}})] = name.starts_with("norm_out") ? swapped(tensor) : tensor;
  }
  return out;
}

TEST(SingleFiles, HunyuanDitOfEitherVersion) {
  for (const bool has_sizes : {true, false}) {
    const Folder folder("HunyuanDiTPipeline", hunyuan_config(has_sizes));
    Json like = hunyuan_config(!has_sizes);
    like.update({{"num_layers", 40},
                 {"hidden_size", 32},
                 {"attention_head_dim", 16},
                 {"num_attention_heads", 2},
                 {"mlp_ratio", 2.5},
                 {"text_len", 77},
                 {"text_len_t5", 256},
                 {"cross_attention_dim", 1024}});
    folder.expect_same(folder.tensors(), like);
    folder.expect_same(tencent(folder), like);
    folder.expect_same(tencent(folder), folder.config);
    const auto file = tencent(folder);
    EXPECT_TRUE(file.contains("blocks.0.attn1.Wqkv.weight") && file.contains("pooler.c_proj.bias"));
    auto broken = file;
    broken.erase("mlp_t5.0.weight");
    EXPECT_TRUE(has(folder.refusal(broken, like), "mlp_t5.0.weight is missing"));
  }
  const Folder folder("HunyuanDiTPipeline", hunyuan_config(true));
  EXPECT_TRUE(has(folder.refusal({{"x", at::zeros({1})}}, {}), "no HunyuanDiT transformer"));
}

Json pixart_config(bool has_sizes) {
  return {{"num_attention_heads", 3},  {"attention_head_dim", 8}, {"cross_attention_dim", 24},
          {"caption_channels", 10},    {"in_channels", 4},        {"out_channels", 8},
          {"num_layers", 3},           {"sample_size", 32},       {"use_additional_conditions", has_sizes},
          {"interpolation_scale", 1.0}};
}

// convert_pixart_sigma_to_diffusers.py
Tensors pixart_original(const Folder& folder) {
  auto all = folder.tensors();
  for (int i = 0; i < 3; ++i) {
    const auto at = str("transformer_blocks.", i, ".");
    fuse(all, at + "attn1.", {"to_q", "to_k", "to_v"}, "qkv");
    fuse(all, at + "attn2.", {"to_k", "to_v"}, "kv_linear");
  }
  Tensors out{{"pos_embed", at::zeros({1, 256, 24})}, {"y_embedder.y_embedding", at::zeros({120, 10})}};
  for (const auto& [name, tensor] : all) {
    if (name.starts_with("transformer_blocks.")) {
      const auto end = name.find('.', 19) + 1;
      out[name.substr(12, end - 12) + renamed(name.substr(end), {{"attn1.qkv", "attn.qkv"},
                                                                 {"attn1.to_out.0", "attn.proj"},
                                                                 {"attn2.to_q", "cross_attn.q_linear"},
                                                                 {"attn2.kv_linear", "cross_attn.kv_linear"},
                                                                 {"attn2.to_out.0", "cross_attn.proj"},
                                                                 {"ff.net.0.proj", "mlp.fc1"},
                                                                 {"ff.net.2", "mlp.fc2"},
                                                                 {"", ""}})] = tensor;
      continue;
    }
    const std::string emb = "adaln_single.emb.";
    out[renamed(name, {{"pos_embed.", "x_embedder."},
                       {"caption_projection.linear_1", "y_embedder.y_proj.fc1"},
                       {"caption_projection.linear_2", "y_embedder.y_proj.fc2"},
                       {emb + "timestep_embedder.linear_1", "t_embedder.mlp.0"},
                       {emb + "timestep_embedder.linear_2", "t_embedder.mlp.2"},
                       {emb + "resolution_embedder.linear_1", "csize_embedder.mlp.0"},
                       {emb + "resolution_embedder.linear_2", "csize_embedder.mlp.2"},
                       {emb + "aspect_ratio_embedder.linear_1", "ar_embedder.mlp.0"},
                       {emb + "aspect_ratio_embedder.linear_2", "ar_embedder.mlp.2"},
                       {"adaln_single.linear", "t_block.1"},
                       {"proj_out", "final_layer.linear"},
                       {"scale_shift_table", "final_layer.scale_shift_table"}})] = tensor;
  }
  return out;
}

TEST(SingleFiles, PixArtWithAndWithoutSizes) {
  for (const bool has_sizes : {true, false}) {
    const Folder folder("PixArtSigmaPipeline", pixart_config(has_sizes));
    Json like = pixart_config(!has_sizes);
    like.update({{"num_layers", 28},
                 {"caption_channels", 4096},
                 {"sample_size", 128},
                 {"num_attention_heads", 16},
                 {"cross_attention_dim", 128},
                 {"interpolation_scale", 2}});
    folder.expect_same(folder.tensors(), like);
    folder.expect_same(pixart_original(folder), like);
    const TemporaryFolder place;
    weights::write_tensors(place / "a.safetensors", pixart_original(folder));
    const Json found = folder.family.config_of_file(*WeightStore::open(place / "a.safetensors"), like);
    EXPECT_EQ(found["sample_size"], 32) << "a table of 16 x 16 positions of two latents each";
    EXPECT_FALSE(found.contains("interpolation_scale"));
    auto squeezed = pixart_original(folder);
    squeezed["blocks.0.attn.sr.weight"] = at::zeros({1});
    EXPECT_TRUE(has(folder.refusal(squeezed, like), "compressed keys and values"));
  }
  const Folder folder("PixArtSigmaPipeline", pixart_config(true));
  EXPECT_TRUE(has(folder.refusal({{"x", at::zeros({1})}}, {}), "no PixArt transformer"));
}

Json unet_config() {
  return {{"block_out_channels", {8, 16, 24}},
          {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
          {"layers_per_block", 2},
          {"transformer_layers_per_block", {1, 2, 3}},
          {"attention_head_dim", {1, 2, 3}},
          {"cross_attention_dim", 10},
          {"norm_num_groups", 4},
          {"use_linear_projection", true},
          {"addition_embed_type", "text_time"},
          {"addition_time_embed_dim", 4},
          {"projection_class_embeddings_input_dim", 29},
          {"sample_size", 16}};
}

// convert_ldm_unet_checkpoint, backwards, of two resnets a level: the place of every block written out.
Tensors stability(const Folder& folder, bool has_linear) {
  Pairs pairs{{"time_embedding.linear_1", "time_embed.0"},
              {"time_embedding.linear_2", "time_embed.2"},
              {"add_embedding.linear_1", "label_emb.0.0"},
              {"add_embedding.linear_2", "label_emb.0.2"},
              {"conv_in", "input_blocks.0.0"},
              {"conv_norm_out", "out.0"},
              {"conv_out", "out.2"},
              {"mid_block.resnets.0", "middle_block.0"},
              {"mid_block.attentions.0", "middle_block.1"},
              {"mid_block.resnets.1", "middle_block.2"},
              {"down_blocks.0.resnets.0", "input_blocks.1.0"},
              {"down_blocks.0.resnets.1", "input_blocks.2.0"},
              {"down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"},
              {"down_blocks.1.resnets.0", "input_blocks.4.0"},
              {"down_blocks.1.attentions.0", "input_blocks.4.1"},
              {"down_blocks.1.resnets.1", "input_blocks.5.0"},
              {"down_blocks.1.attentions.1", "input_blocks.5.1"},
              {"down_blocks.1.downsamplers.0.conv", "input_blocks.6.0.op"},
              {"down_blocks.2.resnets.0", "input_blocks.7.0"},
              {"down_blocks.2.attentions.0", "input_blocks.7.1"},
              {"down_blocks.2.resnets.1", "input_blocks.8.0"},
              {"down_blocks.2.attentions.1", "input_blocks.8.1"},
              {"up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"},
              {"up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"}};
  for (int i = 0; i < 9; ++i) {
    pairs.push_back({str("up_blocks.", i / 3, ".resnets.", i % 3), str("output_blocks.", i, ".0")});
    pairs.push_back({str("up_blocks.", i / 3, ".attentions.", i % 3), str("output_blocks.", i, ".1")});
  }
  const Pairs resnet{{".norm1", ".in_layers.0"},          {".conv1", ".in_layers.2"},
                     {".time_emb_proj", ".emb_layers.1"}, {".norm2", ".out_layers.0"},
                     {".conv2", ".out_layers.3"},         {".conv_shortcut", ".skip_connection"}};
  Tensors out;
  for (const auto& [name, tensor] : folder.tensors()) {
    auto to = renamed(name, pairs);
    const auto resnets = name.find(".resnets.");
    if (resnets != std::string::npos) {
      const auto rest = name.substr(name.find('.', resnets + 9));
      to = to.substr(0, to.size() - rest.size()) + renamed(rest, resnet);
    }
    if (has_linear && name.ends_with("proj_in.weight")) EXPECT_EQ(tensor.dim(), 2);
    out[to] = tensor;
  }
  return out;
}

TEST(SingleFiles, SdxlInBothNamings) {
  for (const bool has_linear : {true, false}) {
    Json config = unet_config(), like = config;
    config["use_linear_projection"] = has_linear;
    like.update({{"block_out_channels", {32, 64, 64}},
                 {"attention_head_dim", {4, 8, 8}},
                 {"layers_per_block", 1},
                 {"transformer_layers_per_block", {1, 1, 1}},
                 {"cross_attention_dim", 2048},
                 {"projection_class_embeddings_input_dim", 2816}});
    const Folder folder("StableDiffusionXLPipeline", config);
    folder.expect_same(folder.tensors(), like);
    folder.expect_same(stability(folder, has_linear), like);
    const TemporaryFolder place;
    weights::write_tensors(place / "a.safetensors", stability(folder, has_linear));
    const UNetConfig found(folder.family.config_of_file(*WeightStore::open(place / "a.safetensors"), like));
    EXPECT_EQ(found.levels[1].heads.count, 2) << "heads of 8 channels";
    EXPECT_EQ(found.sample_size, 16);
    EXPECT_EQ(found.projects_tokens, has_linear);
  }
}

TEST(SingleFiles, SdxlWhoseLevelsDiffer) {
  for (const Json& change :
       {Json{{"down_block_types", {"CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"}},
             {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
             {"layers_per_block", {1, 2, 1}}},
        Json{{"mid_block_type", nullptr}},
        Json{{"transformer_layers_per_block", {1, {2, 1}, {4, 4}}},
             {"reverse_transformer_layers_per_block", {{4, 4, 10}, {2, 1, 1}, 1}}}}) {
    Json config = unet_config();
    config.update(change);
    const Folder folder("StableDiffusionXLPipeline", config);
    folder.expect_same(folder.tensors(), unet_config());
  }
}

TEST(SingleFiles, RelativesOfSdxlAreNamed) {
  const Json like = unet_config();
  const auto refused = [&](const std::string& key, const Json& value, int64_t text, int64_t in) {
    Json config = unet_config();
    config["cross_attention_dim"] = text;
    if (!key.empty()) config[key] = value;
    const Folder folder("StableDiffusionXLPipeline", config);
    auto file = stability(folder, true);
    file["input_blocks.0.0.weight"] = at::zeros({8, in, 3, 3});
    if (text == 768)
      std::erase_if(file, [](const auto& item) { return item.first.starts_with("label_emb"); });
    return folder.refusal(file, like);
  };
  EXPECT_TRUE(has(refused("projection_class_embeddings_input_dim", 2560, 1280, 4), "the SDXL refiner"));
  EXPECT_TRUE(has(refused("", {}, 10, 9), "inpainting"));
  EXPECT_TRUE(has(refused("", {}, 10, 8), "takes a picture beside the latents"));
  EXPECT_TRUE(has(refused("", {}, 768, 4), "Stable Diffusion 1 or 2"));
  const Folder folder("StableDiffusionXLPipeline", unet_config());
  EXPECT_TRUE(has(folder.refusal({{"x", at::zeros({1})}}, like), "no SDXL UNet"));
}

}  // namespace
}  // namespace atelier::models
