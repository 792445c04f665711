// Names of every tool lead to one another and back.
#include "models/spellings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "nn/testing.h"

namespace atelier::models {
namespace {

using nn::error_of;
using nn::has;

// A Wan transformer of two blocks with everything that any kind of it has, in the common names.
std::vector<std::string> transformer() {
  std::vector<std::string> names{"scale_shift_table", "condition_embedder.image_embedder.pos_embed",
                                 "scaled_fp8"};
  const auto linear = [&](const std::string& at) {
    for (const char* part : {".weight", ".bias"}) names.push_back(at + part);
  };
  for (const char* outer :
       {"patch_embedding", "vace_patch_embedding", "condition_embedder.text_embedder.linear_1",
        "condition_embedder.text_embedder.linear_2", "condition_embedder.time_embedder.linear_1",
        "condition_embedder.time_embedder.linear_2", "condition_embedder.time_proj",
        "condition_embedder.image_embedder.norm1", "condition_embedder.image_embedder.norm2",
        "condition_embedder.image_embedder.ff.net.0.proj", "condition_embedder.image_embedder.ff.net.2",
        "proj_out"})
    linear(outer);
  for (const char* block : {"blocks.0.", "blocks.11.", "vace_blocks.0."}) {
    const std::string at(block);
    names.push_back(at + "scale_shift_table");
    for (const char* attention : {"attn1.", "attn2."}) {
      for (const char* part : {"to_q", "to_k", "to_v", "to_out.0"}) linear(at + attention + part);
      for (const char* part : {"norm_q.weight", "norm_k.weight"}) names.push_back(at + attention + part);
    }
    for (const char* part : {"attn2.add_k_proj", "attn2.add_v_proj", "norm2", "ffn.net.0.proj", "ffn.net.2"})
      linear(at + part);
    names.push_back(at + "attn2.norm_added_k.weight");
    names.push_back(at + "ffn.net.2.scale_weight");
  }
  for (const char* part : {"proj_in", "proj_out"}) linear(std::string("vace_blocks.0.") + part);
  return names;
}

std::vector<std::string> in(const Spelling& s, const std::vector<std::string>& common) {
  std::vector<std::string> out;
  for (const auto& name : common) out.push_back(s.spelled_of(name).value_or("nothing for " + name));
  return out;
}

TEST(Spellings, LeadToOneAnotherAndBack) {
  const auto common = transformer();
  const auto model = recognise_names(common, "here").model;
  ASSERT_EQ(model.spellings.size(), 3u);
  for (const auto& s : model.spellings) {
    const auto spelled = in(s, common);
    EXPECT_EQ(std::set(spelled.begin(), spelled.end()).size(), common.size()) << s.tool;
    for (size_t i = 0; i < common.size(); ++i) EXPECT_EQ(s.common_of(spelled[i]), common[i]) << s.tool;
    EXPECT_EQ(recognise_names(spelled, "here").spelling, static_cast<size_t>(&s - model.spellings.data()));
  }
  EXPECT_EQ(in(model.spellings[0], common), common);
}

TEST(Spellings, HaveTheNamesThatOthersWrote) {
  const auto model = recognise_names(transformer(), "here").model;
  const auto lead = [&](const char* native, const char* tool) {
    return spelling_of(model, tool).spelled_of(*spelling_of(model, "native").common_of(native));
  };
  EXPECT_EQ(lead("patch_embedding.weight", "xdit"), "embeddings.patch_embedding.weight");
  EXPECT_EQ(lead("blocks.0.self_attn.q.weight", "xdit"), "encoder.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(lead("blocks.0.ffn.0.weight", "xdit"), "encoder.layers.0.mlp.fc1.weight");
  EXPECT_EQ(lead("blocks.12.norm3.bias", "diffusers"), "blocks.12.norm2.bias");
  EXPECT_EQ(lead("head.modulation", "diffusers"), "scale_shift_table");
  EXPECT_EQ(lead("vace_blocks.3.after_proj.weight", "diffusers"), "vace_blocks.3.proj_out.weight");
  EXPECT_FALSE(spelling_of(model, "native").common_of("blocks.0.norm1.weight"));
  EXPECT_FALSE(spelling_of(model, "native").common_of("head.headless"));
}

TEST(Spellings, StandBehindAPrefixOrAreRefused) {
  auto names = in(recognise_names(transformer(), "").model.spellings[1], transformer());
  for (auto& name : names) name.insert(0, "model.diffusion_model.");
  EXPECT_EQ(recognise_names(names, "here").prefix, "model.diffusion_model.");
  names.push_back("first_stage_model.conv1.weight");
  const auto refused = [](std::span<const std::string> given) {
    return error_of(Kind::kCheckpoint, [&] { recognise_names(given, "here"); });
  };
  EXPECT_TRUE(has(refused(names), "one component at a time"));
  const std::vector<std::string> other{"some.weight"};
  EXPECT_TRUE(has(refused(other), "here: none of its 1 tensors marks"));
  EXPECT_TRUE(has(refused(other), "a Wan transformer and a Wan autoencoder"));
  EXPECT_TRUE(
      has(error_of(Kind::kUsage, [&] { spelling_of(recognise_names(transformer(), "").model, "kohya"); }),
          "diffusers, native, xdit"));
}

}  // namespace
}  // namespace atelier::models
