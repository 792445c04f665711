// Checkpoints under other names, and back again to the byte.
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "app/cli/commands.h"
#include "base/files.h"
#include "base/scratch.h"
#include "weights/rename.h"
#include "weights/tensors.h"

namespace atelier::app {
namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

int convert(const Arguments& arguments) {
  testing::internal::CaptureStdout();
  const int code = convert_command(arguments);
  const auto said = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(has(said, ", 0 unmapped\n")) << said;
  return code;
}

weights::Tensors native() {
  weights::Tensors t;
  int64_t n = 1;
  for (const char* name : {"patch_embedding.weight", "time_projection.1.weight", "blocks.0.self_attn.o.bias",
                           "blocks.0.modulation", "blocks.1.norm3.weight", "blocks.0.ffn.2.weight",
                           "head.modulation", "img_emb.emb_pos"}) {
    t[name] = at::ones({2, n}, n % 2 ? at::kFloat : at::kBFloat16) * n;
    ++n;
  }
  return t;
}

TEST(Convert, ThereAndBackAgainIsTheSameFile) {
  const Scratch folder;
  const auto at = [&](const char* name) { return (folder.path() / name).string(); };
  weights::write_tensors(at("native.safetensors"), native(), {{"format", "pt"}, {"title", "small"}});
  EXPECT_EQ(convert({at("native.safetensors"), at("x.safetensors"), "--to", "xdit"}), 0);
  EXPECT_EQ(convert({at("x.safetensors"), at("d.safetensors"), "--to", "diffusers"}), 0);
  EXPECT_EQ(convert({at("d.safetensors"), at("back.safetensors"), "--to", "native"}), 0);
  EXPECT_EQ(read_file(at("back.safetensors")), read_file(at("native.safetensors")));
  const auto there = weights::read_tensors(at("x.safetensors"));
  EXPECT_EQ(there.size(), 8u);
  EXPECT_TRUE(
      there.at("encoder.layers.0.self_attn.out_proj.bias").equal(native().at("blocks.0.self_attn.o.bias")));
  EXPECT_TRUE(there.contains("embeddings.image_embedding.position_embedding"));
}

TEST(Convert, TakesFoldersAndPrefixes) {
  const Scratch folder;
  const auto at = [&](const char* name) { return (folder.path() / name).string(); };
  weights::write_tensors(at("a.safetensors"), native());
  EXPECT_EQ(convert({at("a.safetensors"), at("shards"), "--to", "diffusers", "--max_shard_size", "1e-8"}), 0);
  EXPECT_TRUE(fs::exists(at("shards/diffusion_pytorch_model.safetensors.index.json")));
  EXPECT_EQ(
      convert({at("shards"), at("b.safetensors"), "--to", "native", "--prefix", "model.diffusion_model."}),
      0);
  EXPECT_TRUE(weights::read_tensors(at("b.safetensors")).contains("model.diffusion_model.head.modulation"));
  EXPECT_EQ(convert({at("b.safetensors"), at("c.safetensors"), "--to", "native"}), 0);
  EXPECT_EQ(weights::read_tensors(at("c.safetensors")).size(), 8u);
}

TEST(Convert, KnowsAutoencodersOfBothGenerations) {
  const Scratch folder;
  for (const char* name : {"one", "two"}) {
    const auto model = fs::path("tests/goldens/wan_vae_small/model") / name;
    const auto native = (folder.path() / name).string() + ".safetensors", back = native + ".safetensors";
    EXPECT_EQ(convert({model.string(), native, "--to", "native"}), 0);
    EXPECT_EQ(convert({native, back, "--to", "diffusers"}), 0);
    EXPECT_EQ(read_file(back), read_file(model / "diffusion_pytorch_model.safetensors"));
    EXPECT_TRUE(weights::read_tensors(native).contains("decoder.middle.1.to_qkv.weight"));
    EXPECT_TRUE(has(message_of(Kind::kUsage,
                               [&] {
                                 convert_command({native, back, "--to", "xdit"});
                               }),
                    "a Wan autoencoder has no names of \"xdit\""));
  }
}

TEST(Convert, WritesNothingThatItCannotWriteWhole) {
  const Scratch folder;
  const auto at = [&](const char* name) { return (folder.path() / name).string(); };
  auto tensors = native();
  tensors["blocks.0.norm1.weight"] = at::ones({2});
  weights::write_tensors(at("a.safetensors"), tensors);
  const auto refused = [&](Kind kind, const Arguments& arguments) {
    auto said = message_of(kind, [&] { convert_command(arguments); });
    EXPECT_FALSE(fs::exists(at("out.safetensors"))) << said;
    return said;
  };
  const auto said =
      refused(Kind::kCheckpoint, {at("a.safetensors"), at("out.safetensors"), "--to", "diffusers"});
  EXPECT_TRUE(has(said, "1 of 9 tensors of a Wan transformer (native) have no name of diffusers")) << said;
  EXPECT_TRUE(has(said, "blocks.0.norm1.weight")) << said;
  weights::write_tensors(at("b.safetensors"), native(), {{"_quantization_metadata", "{}"}});
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, {at("b.safetensors"), at("out.safetensors"), "--to", "xdit"}),
                  "_quantization_metadata"));
  write_file_atomically(at("c.pth"), "pickle");
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, {at("c.pth"), at("out.safetensors"), "--to", "xdit"}), "pickle"));
  weights::write_tensors(at("d.safetensors"), native());
  EXPECT_TRUE(has(refused(Kind::kUsage, {at("d.safetensors"), at("d.safetensors"), "--to", "xdit"}),
                  "is what is read"));
  EXPECT_TRUE(has(refused(Kind::kUsage, {at("d.safetensors")}), "OUT"));
}

}  // namespace
}  // namespace atelier::app
