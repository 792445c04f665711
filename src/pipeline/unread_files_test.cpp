// What a run says of weights that lie beside those it reads.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "nn/testing.h"
#include "pipeline/testing.h"

namespace atelier::pipeline {
namespace {

using nn::error_of;
using nn::has;

namespace fs = std::filesystem;

TEST(UnreadFiles, AreNamedWithTheWayToChooseThem) {
  const Copy model(kGolden / "model");
  const auto notes = [&] { return ModelRepo::open(model.path()).unread_files(); };
  EXPECT_TRUE(notes().empty());
  const auto put = [&](const char* name) {
    weights::write_tensors(model.path() / name, {{"x", at::zeros({2})}});
  };
  put("transformer/other-Q4_0.gguf");
  put("text_encoder/model.fp16.safetensors");
  write_file_atomically(model.path() / "vae/diffusion_pytorch_model.bin", "x");
  const auto found = notes();
  ASSERT_EQ(found.size(), 3u);
  const auto root = model.path().string();
  EXPECT_EQ(
      found[0],
      str("of transformer diffusion_pytorch_model.safetensors is read, and not other-Q4_0.gguf beside it; ",
          "to read other-Q4_0.gguf: --model_name ", root, "/transformer/other-Q4_0.gguf --base_model ",
          root));
  EXPECT_EQ(found[1],
            "of vae diffusion_pytorch_model.safetensors is read, and not diffusion_pytorch_model.bin "
            "beside it; pickles never are");
  EXPECT_TRUE(has(found[2], "and not model.fp16.safetensors beside it; to read another, move")) << found[2];
  fs::rename(model.path() / "transformer/diffusion_pytorch_model.safetensors",
             model.path() / "transformer/b.gguf");
  const auto two = error_of(Kind::kCheckpoint, [&] { ModelRepo::open(model.path()).check(); });
  EXPECT_TRUE(has(two, "b.gguf, other-Q4_0.gguf") && has(two, "--base_model")) << two;
}

}  // namespace
}  // namespace atelier::pipeline
