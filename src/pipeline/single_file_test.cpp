// Files that hold a denoiser, or a whole pipeline, in the namings and number formats that people meet.
#include "pipeline/single_file.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>

#include "pipeline/single_file_for_test.h"

namespace atelier::pipeline {
namespace {

using nn::error_of;
using nn::has;

namespace fs = std::filesystem;

TEST_F(SingleFile, IsReadBehindAnyPrefix) {
  for (const char* prefix : {"", "model.diffusion_model.", "diffusion_model.", "model.", "net.", "x.a.b.",
                             "model", "diffusion_model", "net_", "dit/", "model.diffusion_model/", "a.b_"}) {
    weights::Tensors tensors;
    add(tensors, "transformer", prefix);
    const auto m = open(tensors);
    EXPECT_EQ(m.component("transformer").section.prefix, prefix);
    EXPECT_NO_THROW(m.check()) << prefix;
    expect_same(m, "transformer");
  }
}

TEST_F(SingleFile, APartOfAFolderMayStandBehindAnyPrefix) {
  const std::pair<const char*, const char*> parts[] = {{"transformer", "diffusion_model."},
                                                       {"vae", "first_stage_model."},
                                                       {"text_encoder", "text_encoders.clip_l.transformer."},
                                                       {"text_encoder_2", "encoder_model_"},
                                                       {"transformer", "diffusion_model"},
                                                       {"vae", "vae/"},
                                                       {"text_encoder", "clip"},
                                                       {"text_encoder_2", "t5."}};
  for (const auto& [component, prefix] : parts) {
    const TemporaryFolder copy;
    fs::copy(kGolden / "model", copy.path(), fs::copy_options::recursive);
    weights::Tensors tensors;
    add(tensors, component, prefix);
    for (const auto& item : fs::directory_iterator(copy / component)) {
      if (item.path().extension() == ".safetensors") fs::remove(item.path());
    }
    weights::write_tensors(copy / component / "model.safetensors", tensors);
    const auto m = ModelRepo::open(copy.path());
    const auto& found = m.component(component).section.prefix;  // CLIP's own text_model. may be part of it
    EXPECT_TRUE(found.starts_with(prefix)) << found;
    EXPECT_NO_THROW(m.check()) << component;
    expect_same(m, component);
  }
  const auto own = ModelRepo::open(kGolden / "model");
  for (const auto& [component, prefix] : parts) EXPECT_EQ(own.component(component).section.prefix, "");
}

TEST_F(SingleFile, MayHoldTheWholePipeline) {
  weights::Tensors tensors;
  add(tensors, "transformer", "model.diffusion_model.");
  add(tensors, "vae", "first_stage_model.");
  add(tensors, "text_encoder", "text_encoders.clip_l.transformer.");
  add(tensors, "text_encoder_2", "text_encoders.t5xxl.transformer.");
  tensors["text_encoders.clip_l.logit_scale"] = at::zeros({});
  expect_whole(tensors);
}

TEST_F(SingleFile, ADenoiserWithoutPrefixIsKeptApartFromTheRest) {
  weights::Tensors tensors;
  add(tensors, "transformer", "");
  add(tensors, "vae", "vae.");
  tensors["vae.extra"] = at::zeros({1});
  const auto m = open(tensors);
  EXPECT_TRUE(has(error_of(Kind::kCheckpoint, [&] { m.check(); }), "vae: "));
  tensors.erase("vae.extra");
  EXPECT_NO_THROW(open(tensors).check());
}

TEST_F(SingleFile, ThatHoldsNoDenoiserSaysWhatItIs) {
  weights::Tensors tensors;
  add(tensors, "vae", "");
  const auto message = error_of(Kind::kCheckpoint, [&] { open(tensors); });
  EXPECT_TRUE(has(message, "no denoiser of the family flux") && has(message, "but a vae")) << message;
  weights::Tensors lora{{"transformer.x.lora_A.weight", at::zeros({2, 2})}};
  EXPECT_TRUE(has(error_of(Kind::kCheckpoint, [&] { open(lora); }), "a LoRA"));
}

TEST_F(SingleFile, KeepsItsOwnSizes) {
  weights::Tensors tensors;
  add(tensors, "transformer", "diffusion_model.");
  const Copy other(kGolden / "model");
  other.edit_json("transformer/config.json",
                  [](Json& j) { j["num_layers"] = 7, j["num_single_layers"] = 1; });
  const auto m = open(tensors, other.path());
  EXPECT_EQ(m.denoiser().at("num_layers"), ModelRepo::open(kGolden / "model").denoiser().at("num_layers"));
  EXPECT_NO_THROW(m.check());
}

// By its names alone: nothing says what its sizes are.
using Pairs = std::vector<std::pair<const char*, const char*>>;  // of a text in names, and what replaces it

weights::Tensors renamed(const weights::Tensors& all, const Pairs& pairs) {
  weights::Tensors out;
  for (const auto& [name, tensor] : all) {
    std::string text = name;
    for (const auto& [from, to] : pairs) {
      if (const size_t at = text.find(from); at != text.npos) text.replace(at, std::strlen(from), to);
    }
    out[text] = tensor;
  }
  return out;
}

const Pairs kWanOwn{{"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
                    {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
                    {"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
                    {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
                    {"condition_embedder.time_proj", "time_projection.1"},
                    {"proj_out", "head.head"},
                    {".scale_shift_table", ".modulation"},
                    {"scale_shift_table", "head.modulation"},
                    {"to_out.0", "o"},
                    {"attn1.to_", "self_attn."},
                    {"attn1", "self_attn"},
                    {"attn2.to_", "cross_attn."},
                    {"attn2", "cross_attn"},
                    {"norm2", "norm3"},
                    {"ffn.net.0.proj", "ffn.0"},
                    {"ffn.net.2", "ffn.2"}};

// Of Wan 2.2, as ComfyUI names them: the folder keeps configurations alone.
std::vector<fs::path> experts_as_files(const fs::path& model) {
  std::vector<fs::path> files;
  for (const std::string expert : {"transformer", "transformer_2"}) {
    const auto own = model / expert / "diffusion_pytorch_model.safetensors";
    files.push_back(model / (expert + ".safetensors"));
    weights::write_tensors(files.back(), renamed(weights::read_tensors(own), kWanOwn));
    fs::remove(own);
  }
  return files;
}

TEST(Files, AreTakenForBothExperts) {
  const Copy model("tests/goldens/wan_experts/model");
  const auto files = experts_as_files(model.path());
  const auto m = ModelRepo::open_single_files(files, model.path());
  EXPECT_NO_THROW(m.check());
  EXPECT_EQ(m.component("transformer").file, files[0]);
  EXPECT_EQ(m.component("transformer_2").file, files[1]);
  const auto refused = [&](std::span<const fs::path> some, const fs::path& rest) {
    return error_of(Kind::kUsage, [&] { ModelRepo::open_single_files(some, rest); });
  };
  EXPECT_TRUE(has(refused(std::span(files).first(1), model.path()), "name the file of transformer_2 too"));
  EXPECT_TRUE(has(refused(files, "models/mini-video"), "has one denoiser"));
  auto wide = weights::read_tensors(files[1]);
  auto& first = wide.at("patch_embedding.weight");
  first = at::cat({first, first}, 1);
  weights::write_tensors(files[1], wide);
  const auto unlike = refused(files, model.path());
  EXPECT_TRUE(has(unlike, "not the two experts of one model")) << unlike;
  EXPECT_TRUE(has(unlike, "in_channels")) << unlike;
}

TEST(Files, BesideAFolderAreOneForEachDenoiser) {
  const Copy model("tests/goldens/wan_experts/model");
  const auto files = experts_as_files(model.path());
  const auto m = ModelRepo::open(model.path(), files);
  EXPECT_EQ(m.component("transformer").file, files[0]);
  EXPECT_EQ(m.component("transformer_2").file, files[1]);
}

// 8-bit floats with a scale each, of matrices in blocks, as ComfyUI writes them.
weights::Tensors scaled(const weights::Tensors& all) {
  weights::Tensors out;
  for (const auto& [name, tensor] : all) {
    const bool is_matrix =
        name.ends_with(".weight") && name.find("blocks.") != name.npos && tensor.dim() == 2;
    out[name] = is_matrix ? tensor.to(at::kFloat8_e4m3fn) : tensor;
    if (is_matrix) out[name.substr(0, name.size() - 6) + "scale_weight"] = at::full({}, 1.0F);
  }
  return out;
}

TEST(Files, InDiffusersNamesAreReadBehindAnyPrefix) {
  for (const char* golden : {"flux_dev", "sd3_small", "pixart_small", "hunyuan_small", "sdxl_small",
                             "wan_first", "wan_frames", "wan_steered"}) {
    const fs::path folder = fs::path("tests/goldens") / golden / "model";
    const std::string part(ModelRepo::open(folder).family().experts.front());
    const auto stored = weights::read_tensors(folder / part / "diffusion_pytorch_model.safetensors");
    for (const char* before : {"", "model.diffusion_model.", "diffusion_model.", "transformer."}) {
      for (const auto& tensors : {stored, scaled(stored)}) {
        const TemporaryFolder made;
        const auto file = made / "a.safetensors";
        weights::Tensors behind;
        for (const auto& [name, tensor] : tensors) behind[before + name] = tensor;
        weights::write_tensors(file, behind);
        EXPECT_NO_THROW(ModelRepo::open_single_files(std::vector{file}, folder).check())
            << golden << " " << before;
        const Copy rest(folder);
        fs::remove(rest.path() / part / "diffusion_pytorch_model.safetensors");
        const std::vector<fs::path> beside{file};
        EXPECT_NO_THROW(ModelRepo::open(rest.path(), beside).check()) << golden << " " << before;
      }
    }
  }
}

TEST(Files, AreOfTheFamilyThatKnowsTheirNames) {
  for (const char* golden :
       {"flux_dev", "sd3_small", "pixart_small", "hunyuan_small", "sdxl_small", "wan_experts"}) {
    const fs::path folder = fs::path("tests/goldens") / golden / "model";
    const auto m = ModelRepo::open(folder);
    const auto file = folder / m.family().experts.front() / "diffusion_pytorch_model.safetensors";
    EXPECT_EQ(contents_of(file), str("a denoiser of the family ", m.family().name)) << golden;
  }
}

// ComfyUI's marks lie beside the tensors where no prefix sets these apart.
TEST(Files, OfSdxlMaySayHowPredictionsAreMeant) {
  const fs::path folder = "tests/goldens/sdxl_small/model";
  auto tensors = weights::read_tensors(folder / "unet/diffusion_pytorch_model.safetensors");
  for (const char* name : {"v_pred", "ztsnr", "edm_mean", "edm_vpred.sigma_max"})
    tensors[name] = at::zeros({1});
  const TemporaryFolder made;
  weights::write_tensors(made / "unet.safetensors", tensors);
  EXPECT_NO_THROW(ModelRepo::open_single_files(std::vector{made / "unet.safetensors"}, folder).check());
}

TEST(Parts, ThatDoNotFitAreNamedBeforeLoading) {
  const Copy wide(kGolden / "model");
  wide.edit_json("text_encoder_2/config.json", [](Json& j) { j["d_model"] = 2 * j["d_model"].get<int>(); });
  const auto text = error_of(Kind::kCheckpoint, [&] { ModelRepo::open(wide.path()).check(); });
  EXPECT_TRUE(has(text, "joint_attention_dim") && has(text, "text_encoder_2") && has(text, "transformer"))
      << text;
  const Copy pooled(kGolden / "model");
  pooled.edit_json("transformer/config.json", [](Json& j) { j["pooled_projection_dim"] = 999; });
  const auto clip = error_of(Kind::kCheckpoint, [&] { ModelRepo::open(pooled.path()).check(); });
  EXPECT_TRUE(has(clip, "999") && has(clip, "text_encoder gives")) << clip;
  const Copy latents(kGolden / "model");
  latents.edit_json("vae/config.json",
                    [](Json& j) { j["latent_channels"] = 3 + j["latent_channels"].get<int>(); });
  const auto vae = error_of(Kind::kCheckpoint, [&] { ModelRepo::open(latents.path()).check(); });
  EXPECT_TRUE(has(vae, "latents of") && has(vae, "vae takes")) << vae;
}

TEST(Encoders, OfWholeModelsLendTheirPart) {
  const Copy copy(kGolden / "model");
  copy.edit_tensors("text_encoder/model.safetensors", [](weights::Tensors& t) {
    for (const char* name : {"vision_model.embeddings.class_embedding", "visual_projection.weight",
                             "logit_scale", "text_projection.weight"}) {
      t[name] = at::zeros({2, 2});
    }
  });
  copy.edit_json("text_encoder/config.json", [](Json& j) {
    Json text = j;
    j = {{"architectures", {"CLIPModel"}}, {"text_config", text}, {"model_type", "clip"}};
  });
  copy.edit_tensors("text_encoder_2/model.safetensors", [](weights::Tensors& t) {
    t["decoder.block.0.layer.0.SelfAttention.q.weight"] = at::zeros({2, 2});
    t["lm_head.weight"] = at::zeros({2, 2});
  });
  copy.edit_json("text_encoder_2/config.json",
                 [](Json& j) { j["architectures"] = {"T5ForConditionalGeneration"}; });
  const auto m = ModelRepo::open(copy.path());
  EXPECT_NO_THROW(m.check());
  EXPECT_EQ(m.vocabulary("text_encoder"), 1014);
}

TEST(Encoders, OfWanMayHaveTheNamesOfItsRepository) {
  const Pairs names{{"shared", "token_embedding"},
                    {"encoder.final_layer_norm", "norm"},
                    {"encoder.block", "blocks"},
                    {"layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"},
                    {"layer.0.SelfAttention", "attn"},
                    {"layer.0.layer_norm", "norm1"},
                    {"layer.1.layer_norm", "norm2"},
                    {"layer.1.DenseReluDense.wi_0", "ffn.gate.0"},
                    {"layer.1.DenseReluDense.wi_1", "ffn.fc1"},
                    {"layer.1.DenseReluDense.wo", "ffn.fc2"}};
  const fs::path folder = "tests/goldens/wan_experts/model";
  const Copy copy(folder);
  copy.edit_tensors("text_encoder/model.safetensors", [&](weights::Tensors& all) {
    all = renamed(all, names);
    all.erase("encoder.embed_tokens.weight");
  });
  const auto want = ModelRepo::open(folder), got = ModelRepo::open(copy.path());
  const auto& encoder = got.component("text_encoder");
  const auto a = want.weights(want.component("text_encoder")), b = got.weights(encoder);
  for (const auto& [name, shape] : tensors_of(got.family(), encoder)) {
    at::Tensor x = at::zeros(shape), y = at::zeros(shape);
    a->read_into(x, name, shape, {}, {});
    b->read_into(y, name, shape, {}, {});
    EXPECT_TRUE(at::equal(x, y)) << name;
  }
  EXPECT_NO_THROW(b->check());
}

}  // namespace
}  // namespace atelier::pipeline
