// Adapters of a whole model: which layers their names mean, every layout and place of the weights, and
// changing them between requests.
#include "pipeline/adapters.h"

#include <gtest/gtest.h>

#include <new>

#include "base/quote.h"
#include "pipeline/testing.h"
#include "pipeline/toy_family.h"
#include "plan/parallel_config.h"
#include "weights/adapter_for_test.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;
using weights::numbers;
using weights::Tensors;

const ModelRepo& model() {
  static const ModelRepo repo = ModelRepo::random(toy::family(), toy::configs(), "toy", 5);
  return repo;
}

void add(Tensors& tensors, const std::string& layer, int64_t rows, int64_t cols, bool is_dora = false) {
  const uint64_t seed = 100 + tensors.size();
  tensors[layer + ".lora_A.weight"] = numbers({2, cols}, seed) / 3;
  tensors[layer + ".lora_B.weight"] = numbers({rows, 2}, seed + 50) / 3;
  if (is_dora) tensors[layer + ".lora_magnitude_vector"] = numbers({rows}, seed + 70).abs();
}

// One LoRA of every kind of layer and of both encoders; one DoRA.
class ToyAdapters : public ::testing::Test {
 protected:
  ToyAdapters() {
    Tensors lora, dora;
    add(lora, "transformer.blocks.0.qkv", 120, 40);
    add(lora, "transformer.blocks.1.down", 40, 160);
    add(lora, "transformer.blocks.2.cross.kv", 80, 40);
    add(lora, "transformer.blocks.3.out", 40, 40);
    add(lora, "transformer.shared", 240, 40);
    add(lora, "transformer.image_in", 40, 12);
    add(lora, "text_encoder.text_model.encoder.layers.0.self_attn.v_proj", 16, 16);
    add(lora, "text_encoder_2.encoder.block.1.layer.0.SelfAttention.q", 24, 24);
    add(dora, "diffusion_model.blocks.1.down", 40, 160, true);
    add(dora, "diffusion_model.blocks.1.up", 160, 40, true);
    add(dora, "diffusion_model.blocks.3.out", 40, 40, true);
    lora_ = folder_.write(lora, {}, "lora.safetensors").string();
    dora_ = folder_.write(dora, {}, "dora.safetensors").string() + ":0.6";
  }

  static std::vector<request::Request> batch_of(std::vector<std::string> lora) {
    auto batch = request_for({"a fox in the snow"}, {3});
    auto& r = batch.front();
    r.height = 24, r.width = 20, r.max_sequence_length = 24;
    r.negative_prompt = "rain";
    r.guidance_is_cfg = true;
    if (!lora.empty()) r.lora = std::move(lora);
    return batch;
  }
  // Of the last of several requests that follow each other.
  static at::Tensor latents(const plan::ParallelConfig& layout,
                            const std::vector<std::vector<std::string>>& adapters,
                            const LoadOptions& load = {.denoiser = at::kDouble}) {
    ActivationRecorder probes;
    on_ranks(model(), layout, load, [&](Pipeline& p, int) {
      for (size_t i = 0; i < adapters.size(); ++i) {
        StepCallbacks callbacks;
        if (i + 1 == adapters.size()) callbacks.probes = &probes;
        p.generate(batch_of(adapters[i]), callbacks);
      }
    });
    return probes.tensors().at("latents.final").to(at::kDouble);
  }

  weights::AdapterFolder folder_;
  std::string lora_, dora_;
};

TEST_F(ToyAdapters, ChangeThePictureAndEachDoes) {
  const auto none = latents({}, {{}}), lora = latents({}, {{lora_}}), dora = latents({}, {{dora_}});
  EXPECT_GT(distance(lora, none), 1e-2);
  EXPECT_GT(distance(dora, none), 1e-2);
  EXPECT_GT(distance(latents({}, {{lora_, dora_}}), lora), 1e-2);
  EXPECT_TRUE(latents({}, {{lora_ + ":0"}}).equal(none));
  EXPECT_TRUE(latents({}, {{lora_ + ":0.5"}, {lora_}}).equal(lora));
}

TEST_F(ToyAdapters, AreTheSameUnderEveryLayout) {
  const auto expected = latents({}, {{lora_, dora_}});
  for (const char* layout :
       {"cfg=2", "ulysses=2", "ring=2", "kv_gather=2", "tensor=2", "pipefusion=2, sync", "ulysses=2, shard=2",
        "tensor=4", "ring=4, shard=2", "pipefusion=2, sync, tensor=2"}) {
    EXPECT_LT(distance(latents(plan::parse_strategy(layout), {{lora_, dora_}}), expected), 1e-6) << layout;
  }
}

// Other adapters are read into the same memory, wherever it is: the picture is that of a model which
// was loaded so.
TEST_F(ToyAdapters, ChangeBetweenRequestsUnderEveryLayoutWithTheSameBits) {
  for (const auto residency : {Residency::kResident, Residency::kParked, Residency::kStreamed}) {
    for (const char* layout : {"data=1", "cfg=2", "tensor=2", "pipefusion=2, sync", "ulysses=2, shard=2"}) {
      const auto degrees = plan::parse_strategy(layout);
      const LoadOptions plain{.denoiser = at::kDouble, .residency = residency};
      auto loaded = plain;
      loaded.adapters = request::adapter_refs(std::vector{lora_, dora_});
      const auto expected = latents(degrees, {{lora_, dora_}}, loaded);
      EXPECT_TRUE(latents(degrees, {{lora_, dora_}, {dora_}, {}, {lora_, dora_}}, plain).equal(expected))
          << layout;
      EXPECT_TRUE(latents(degrees, {{lora_, dora_}, {}}, loaded).equal(latents(degrees, {{}}, plain)))
          << layout;
    }
  }
}

TEST_F(ToyAdapters, OnlyWhatTheyTouchIsReadAgain) {
  constexpr int64_t kDenoiser = 120 * 40 + 40 * 160 + 80 * 40 + 40 * 40 + 240 * 40 + 40 * 12;
  constexpr int64_t kEncoders = 48 * 16 + 72 * 24;  // q, k and v are one tensor
  constexpr int64_t kDora = 40 * 160 + 160 * 40 + 40 * 40;
  on_ranks(model(), {}, {.denoiser = at::kFloat}, [&](Pipeline& p, int) {
    const auto bytes = [&](const std::vector<std::string>& adapters) {
      p.generate(batch_of(adapters), {});
      return p.timing().reread_bytes;
    };
    EXPECT_EQ(bytes({}), 0);
    EXPECT_EQ(bytes({lora_}), 4 * (kDenoiser + kEncoders));
    EXPECT_EQ(bytes({lora_}), 0);
    EXPECT_EQ(bytes({lora_, dora_}), 4 * kDora);
    EXPECT_EQ(bytes({dora_}), 4 * (kDenoiser + kEncoders));
    EXPECT_EQ(bytes({}), 4 * kDora);
  });
}

// Where memory is short the leader encodes once more, with what an encoder's adapter changes.
TEST_F(ToyAdapters, OfEncodersAreStillThereAtTheSecondTry) {
  Tensors tensors;
  add(tensors, "text_encoder.text_model.encoder.layers.0.self_attn.v_proj", 24, 24);
  const auto lora = folder_.write(tensors, {}, "encoder.safetensors").string();
  auto batch = request_for({"a fox in the snow"}, {3});
  for (int i = 0; i < 12; ++i) batch.front().prompt += " and another fox";  // which is told of
  const auto pooled = [&](const std::vector<std::string>& adapters, int failures) {
    ActivationRecorder probes;
    if (!adapters.empty()) batch.front().lora = adapters;
    on_ranks(ModelRepo::open(kGolden / "model"), plan::parse_strategy("ulysses=2"), {},
             [&](Pipeline& p, int rank) {
               int left = rank == 0 ? failures : 0;
               p.generate(batch, {.probes = &probes, .on_note = [&](size_t, const std::string&) {
                                    if (left-- > 0) throw std::bad_alloc();
                                  }});
               EXPECT_LT(left, 1) << "no failure was met";
             });
    return probes.tensors().at("prompt.pooled");
  };
  const auto none = pooled({}, 0), expected = pooled({lora}, 0);
  EXPECT_GT(distance(expected, none), 1e-3);
  EXPECT_TRUE(pooled({lora}, 1).equal(expected));
}

class AdapterNames : public ToyAdapters {
 protected:
  std::string refusal(const Tensors& tensors) {
    const auto path = folder_.write(tensors).string();
    return error_of(Kind::kCheckpoint, [&] { bound(path); });
  }
  size_t bound(const std::string& path) {
    Adapters adapters(model());
    const request::AdapterRef ref{path};
    return adapters.bind(std::span(&ref, 1)).size();
  }
  static Tensors one(const std::string& layer, int64_t rows, int64_t cols) {
    Tensors out;
    add(out, layer, rows, cols);
    return out;
  }
};

TEST_F(AdapterNames, OfEveryTrainerMeanTheSameLayer) {
  for (const char* name :
       {"transformer.blocks.0.out", "base_model.model.blocks.0.out", "diffusion_model.blocks.0.out",
        "model.diffusion_model.blocks.0.out", "blocks.0.out", "lora_unet_blocks_0_out",
        "lora_transformer_blocks_0_out", "lycoris_blocks_0_out", "transformer.blocks.0.processor.out",
        "lora_unet__blocks_0_out", "lora_transformer__blocks_0_out", "lycoris__blocks_0_out"}) {
    EXPECT_EQ(refusal(one(name, 40, 40)), "no error") << name;
  }
  for (const char* name :
       {"lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_te1__text_model_encoder_layers_0_mlp_fc1",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1"}) {
    EXPECT_EQ(refusal(one(name, 32, 16)), "no error") << name;
  }
  for (const char* name : {"lora_te2_encoder_block_0_layer_0_SelfAttention_q",
                           "lora_te3_encoder_block_0_layer_0_SelfAttention_q"}) {
    EXPECT_EQ(refusal(one(name, 24, 24)), "no error") << name;
  }
}

// torch.compile, DDP and FSDP write parts of their own into names, with dots or in kohya's form.
TEST_F(AdapterNames, MayBeWrappedAsTrainingLeavesThem) {
  for (const char* name :
       {"_orig_mod.transformer.blocks.0._orig_mod.out", "transformer._orig_mod.blocks.0.out",
        "module.diffusion_model.blocks.0.out", "base_model.model.module.blocks.0._fsdp_wrapped_module.out",
        "transformer.blocks.0._checkpoint_wrapped_module.out", "lora_unet__orig_mod_blocks_0_out",
        "lora_unet_blocks_0__orig_mod_out", "lora_transformer__fsdp_wrapped_module_blocks_0_out"}) {
    EXPECT_EQ(refusal(one(name, 40, 40)), "no error") << name;
  }
}

TEST_F(AdapterNames, OfTheDenoiserMayStandBehindAPrefixThatNobodyKnows) {
  const auto two = [](const std::string& prefix) {
    auto layers = one(prefix + "blocks.0.out", 40, 40);
    add(layers, prefix + "blocks.1.down", 40, 160);
    return layers;
  };
  for (const char* prefix : {"net.", "pipe.dit.", "model.", "a.b.c."})
    EXPECT_EQ(refusal(two(prefix)), "no error") << prefix;
  for (const char* prefix : {"transformer_2.", "text_encoder_3.", "unet.", "0.", "net.1.", "single_"})
    EXPECT_TRUE(has(refusal(two(prefix)), "belong to nothing")) << prefix;
}

TEST_F(AdapterNames, ThatBelongToNothingAreListedWithTheNearest) {
  auto half = one("transformer.blocks.0.out", 40, 40);
  add(half, "transformer.blocks.0.outt", 40, 40);
  const auto message = refusal(half);
  EXPECT_TRUE(
      has(message, "1 of the adapter's 2 layers belong to nothing in toy: \"transformer.blocks.0.outt\""))
      << message;
  EXPECT_TRUE(has(message, "transformer.blocks.0.out")) << message;
  EXPECT_TRUE(has(refusal(one("transformer.blocks.9.out", 40, 40)), "belong to nothing"));
}

TEST_F(AdapterNames, OfAnotherModelAreSaidToBe) {
  EXPECT_TRUE(
      has(refusal(one("lora_unet_double_blocks_0_img_attn_proj", 64, 64)), "it is an adapter for flux"));
  EXPECT_TRUE(
      has(refusal(one("transformer.blocks.0.out", 64, 40)), "is for [64, 40], the model has [40, 40]"));
}

TEST_F(AdapterNames, OfLayersWhoseResultsAreThrownAwayAreLeftOut) {
  const auto sd3 = ModelRepo::open("tests/goldens/sd3_small/model");
  const auto bound = [&](const Tensors& tensors) {
    const request::AdapterRef ref{folder_.write(tensors).string()};
    return error_of(Kind::kCheckpoint, [&] { Adapters(sd3).bind(std::span(&ref, 1)); });
  };
  const std::string last = "transformer.transformer_blocks.2.attn.";
  auto both = one(last + "add_q_proj", 12, 12);
  EXPECT_TRUE(has(bound(both), "belong to nothing"));
  add(both, last + "add_k_proj", 12, 12);
  EXPECT_EQ(bound(both), "no error");
  add(both, last + "to_add_out", 12, 12);
  EXPECT_TRUE(has(bound(both), "1 of the adapter's 3 layers belong to nothing"));
}

TEST_F(AdapterNames, BiasesMustBeThere) {
  auto layer = one("transformer.blocks.0.out", 40, 40);
  layer["transformer.blocks.0.out.lora_B.bias"] = numbers({40});
  EXPECT_EQ(refusal(layer), "no error");
  auto t5 = one("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q", 24, 24);
  t5["text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_B.bias"] = numbers({24});
  EXPECT_TRUE(has(refusal(t5), "the model's layer has none"));
}

TEST_F(AdapterNames, OfALayerWithMoreInputsMayChangeItsBias) {
  const auto wan = ModelRepo::open("tests/goldens/wan_experts/model");
  const auto bound = [&](const Tensors& tensors) {
    const request::AdapterRef ref{folder_.write(tensors).string()};
    return error_of(Kind::kCheckpoint, [&] {
      const auto changes = Adapters(wan).bind(std::span(&ref, 1));
      EXPECT_EQ(changes.at("transformer").tensors(),
                (std::vector<std::string>{"patch_embedding.added.weight", "patch_embedding.bias",
                                          "patch_embedding.weight"}));
    });
  };
  const std::string layer = "diffusion_model.patch_embedding";
  Tensors wide{{layer + ".lora_A.weight", numbers({2, 8, 1, 2, 2})},
               {layer + ".lora_B.weight", numbers({18, 2, 1, 1, 1})},
               {layer + ".diff_b", numbers({18})}};
  EXPECT_EQ(bound(wide), "no error");
  wide[layer + ".lora_magnitude_vector"] = numbers({18});
  EXPECT_TRUE(has(bound(wide), "which DoRA cannot scale")) << bound(wide);
}

class ExpertAdapters : public AdapterNames {
 protected:
  // The components that an adapter of these layers changes, those that it may have been meant for with "?"
  // before them; or why it changes none.
  std::string changed(const std::vector<std::string>& layers, const std::string& expert) {
    Tensors tensors;
    for (const auto& layer : layers) tensors.merge(one(layer, 18, 18));
    const auto path = folder_.write(tensors, {}, str(++files_, ".safetensors").c_str()).string();
    const request::AdapterRef ref{.path = path, .expert = expert};
    std::vector<std::string> out;
    try {
      for (const auto& [component, changes] : adapters_.bind(std::span(&ref, 1))) out.push_back(component);
      for (const auto& other : adapters_.unmentioned(ref)) out.push_back("?" + other);
    } catch (const Error& e) {
      return e.what();
    }
    return list_text(out, out.size());
  }

  const ModelRepo wan_ = ModelRepo::open("tests/goldens/wan_experts/model");
  Adapters adapters_{wan_};
  int files_ = 0;
};

TEST_F(ExpertAdapters, AreForTheFirstOrForTheOneAskedFor) {
  for (const char* prefix :
       {"", "diffusion_model.", "base_model.model.", "transformer.", "base_model.model.transformer."}) {
    const std::vector<std::string> layers{str(prefix, "blocks.0.attn1.to_q")};
    const bool is_named = str(prefix).find("transformer.") != std::string::npos;
    EXPECT_EQ(changed(layers, ""), is_named ? "transformer" : "transformer, ?transformer_2") << prefix;
    EXPECT_EQ(changed(layers, "transformer"), "transformer") << prefix;
    EXPECT_EQ(changed(layers, "transformer_2"), "transformer_2") << prefix;
  }
  EXPECT_EQ(changed({"lora_unet_blocks_0_attn1_to_q"}, "transformer_2"), "transformer_2");
}

TEST_F(ExpertAdapters, MayNameTheirExperts) {
  const std::string first = "transformer.blocks.0.attn1.to_q", second = "transformer_2.blocks.0.attn1.to_q";
  for (const char* expert : {"", "transformer_2"}) EXPECT_EQ(changed({second}, expert), "transformer_2");
  EXPECT_EQ(changed({first, second}, ""), "transformer, transformer_2");
  for (const char* expert : {"transformer", "transformer_2"}) {
    EXPECT_TRUE(has(changed({first, second}, expert), "itself, and " + str(expert) + " was asked for"))
        << expert;
  }
  EXPECT_TRUE(has(changed({second}, "transformer"), "names layers of transformer_2 itself"));
}

TEST_F(ExpertAdapters, MustBeForOneThatTheModelHas) {
  const auto message = changed({"blocks.0.attn1.to_q"}, "unet");
  EXPECT_TRUE(has(message, "the expert \"unet\"")) << message;
  EXPECT_TRUE(has(message, "has transformer, transformer_2")) << message;
}

TEST_F(AdapterNames, AChangedFileIsReadAgain) {
  const auto path = folder_.write(one("transformer.blocks.0.out", 40, 40)).string();
  Adapters adapters(model());
  const request::AdapterRef ref{path};
  EXPECT_NO_THROW(adapters.bind(std::span(&ref, 1)));
  folder_.write(one("transformer.blocks.0.nothing", 40, 400));
  EXPECT_TRUE(
      has(error_of(Kind::kCheckpoint, [&] { adapters.bind(std::span(&ref, 1)); }), "belong to nothing"));
}

}  // namespace
}  // namespace atelier::pipeline
