// Files whose names training has wrapped, or that stand behind prefixes which end in no dot.
#include "nn/testing.h"
#include "pipeline/single_file_for_test.h"

namespace atelier::pipeline {
namespace {

using nn::error_of;
using nn::has;

namespace fs = std::filesystem;

// Names as compiled, sharded and checkpointed modules have them.
TEST_F(SingleFile, TrainingMayHaveWrappedItsModules) {
  const auto wrapped = [](const std::string& name, const std::string& word, size_t parts) {
    size_t at = 0;
    for (size_t i = 0; i < parts && name.find('.', at) != name.npos; ++i) at = name.find('.', at) + 1;
    return name.substr(0, at) + word + name.substr(at);
  };
  for (const char* word : {"_orig_mod.", "module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.",
                           "_forward_module.module._orig_mod."}) {
    for (const size_t parts : {0, 1, 2}) {
      weights::Tensors all;
      for (const auto& [name, tensor] :
           weights::read_tensors(kGolden / "model/transformer/diffusion_pytorch_model.safetensors"))
        all[wrapped(name, word, parts)] = tensor;
      const auto m = open(all);
      EXPECT_NO_THROW(m.check()) << word << parts;
      expect_same(m, "transformer");
      const Copy folder(kGolden / "model");
      for (const char* file :
           {"transformer/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/model.safetensors", "text_encoder_2/model.safetensors"}) {
        folder.edit_tensors(file, [&](weights::Tensors& own) {
          weights::Tensors renamed;
          for (const auto& [name, tensor] : own) renamed[wrapped(name, word, parts)] = tensor;
          own = std::move(renamed);
        });
      }
      const auto whole = ModelRepo::open(folder.path());
      EXPECT_NO_THROW(whole.check()) << word << parts;
      for (const char* part : {"transformer", "vae", "text_encoder", "text_encoder_2"})
        expect_same(whole, part);
    }
  }
}

TEST_F(SingleFile, ATensorWithAndWithoutItsWrapperIsRefused) {
  weights::Tensors tensors;
  add(tensors, "transformer", "");
  tensors["_orig_mod.proj_out.weight"] = tensors.at("proj_out.weight");
  const auto text = error_of(Kind::kCheckpoint, [&] { open(tensors); });
  EXPECT_TRUE(has(text, "\"proj_out.weight\" twice, once under \"_orig_mod.proj_out.weight\"") ||
              has(text, "\"proj_out.weight\" twice, once under \"proj_out.weight\""))
      << text;
}

TEST_F(SingleFile, WhatNobodyKnowsIsNamed) {
  const auto text = error_of(Kind::kCheckpoint, [&] {
    open({{"alpha.weight", at::zeros({2})}, {"beta.weight", at::zeros({2})}, {"c", at::zeros({2})}});
  });
  EXPECT_TRUE(has(text, "the names of its 3 tensors: \"alpha.weight\"")) << text;
}

TEST_F(SingleFile, MayHoldTheWholePipelineBehindPrefixesWithoutADot) {
  weights::Tensors tensors;
  add(tensors, "transformer", "model");
  add(tensors, "vae", "model_vae_");
  add(tensors, "text_encoder", "clip/");
  add(tensors, "text_encoder_2", "t5xxl");
  expect_whole(tensors);
}

}  // namespace
}  // namespace atelier::pipeline
