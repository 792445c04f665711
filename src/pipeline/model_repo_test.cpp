// Model folders: what is read from them, and that each kind of damage is named.
#include "pipeline/model_repo.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/files.h"
#include "pipeline/testing.h"

namespace atelier::pipeline {
namespace {

using nn::error_of;
using nn::has;

namespace fs = std::filesystem;
const char* const kTransformer = "transformer/diffusion_pytorch_model.safetensors";

std::string open_error(Kind kind, const fs::path& folder) {
  return error_of(kind, [&] { ModelRepo::open(folder); });
}
std::string check_error(const fs::path& folder) {
  return error_of(Kind::kCheckpoint, [&] { ModelRepo::open(folder).check(); });
}

TEST(Folder, IsReadAndFits) {
  const auto m = ModelRepo::open(kGolden / "model");
  EXPECT_EQ(m.family().name, "flux");
  EXPECT_EQ(m.label(), "model");
  EXPECT_EQ(ModelRepo::open(kGolden / "model/").label(), "model");
  EXPECT_TRUE(!m.is_dummy() && m.has_vocabulary());
  EXPECT_EQ(m.defaults().steps, 28);
  EXPECT_EQ(m.vocabulary("text_encoder"), 1014);
  EXPECT_NO_THROW(m.check());
}

TEST(Folder, GivesItsOwnDefaults) {
  const Copy copy(kGolden / "model");
  copy.edit_json("model_index.json", [](Json& j) {
    j["_atelier"] = {{"num_inference_steps", 9}, {"height", 256}, {"true_cfg_scale", 2.5}};
  });
  const auto m = ModelRepo::open(copy.path());
  EXPECT_EQ(m.defaults().steps, 9);
  EXPECT_EQ(m.defaults().height, 256);
  EXPECT_EQ(m.defaults().width, 1024);
  EXPECT_EQ(m.defaults().true_cfg, 2.5);
  copy.edit_json("model_index.json", [](Json& j) { j["_atelier"]["height"] = "tall"; });
  EXPECT_TRUE(has(open_error(Kind::kCheckpoint, copy.path()), "_atelier"))
      << open_error(Kind::kCheckpoint, copy.path());
}

TEST(Folder, ThatIsNoneOrOfAnotherFamilyIsAUsersMistake) {
  const auto none = open_error(Kind::kUsage, "no/such/folder");
  EXPECT_TRUE(has(none, "no/such/folder") && has(none, "model_index.json")) << none;
  const Copy copy(kGolden / "model");
  copy.edit_json("model_index.json", [](Json& j) { j["_class_name"] = "KandinskyPipeline"; });
  const auto other = open_error(Kind::kUsage, copy.path());
  EXPECT_TRUE(has(other, "KandinskyPipeline") && has(other, "FluxPipeline")) << other;
  for (const char* text : {"[1, 2]", "3", "{}", "{\"_class_name\": 7}"}) {
    write_file_atomically(copy.path() / "model_index.json", text);
    const auto message = open_error(Kind::kUsage, copy.path());
    EXPECT_TRUE(has(message, "model_index.json")) << text << " gave: " << message;
  }
}

// As the reference's pipelines that edit pictures save it; the parts are the same.
TEST(Folder, MayBeNamedAfterAPipelineThatEdits) {
  const Copy copy(kGolden / "model");
  for (const char* name : {"FluxImg2ImgPipeline", "FluxInpaintPipeline"}) {
    copy.edit_json("model_index.json", [&](Json& j) { j["_class_name"] = name; });
    EXPECT_EQ(ModelRepo::open(copy.path()).family().pipeline, "FluxPipeline") << name;
  }
}

TEST(Folder, AnIndexAtOddsWithItsPartsIsNamed) {
  const Copy copy(kGolden / "model");
  const auto refused = [&](const char* part, const Json& named) {
    const Json before = read_json(copy.path() / "model_index.json");
    copy.edit_json("model_index.json", [&](Json& j) { j[part] = named; });
    auto message = open_error(Kind::kCheckpoint, copy.path());
    copy.edit_json("model_index.json", [&](Json& j) { j = before; });
    return message;
  };
  for (const char* part : {"transformer", "vae", "text_encoder"}) {
    const auto none = refused(part, {nullptr, nullptr});
    EXPECT_TRUE(has(none, str("leaves ", part, " out"))) << none;
    EXPECT_TRUE(has(refused(part, "FluxTransformer2DModel"), "a library and a class")) << part;
  }
  const auto vae = refused("vae", {"diffusers", "AutoencoderTiny"});
  EXPECT_TRUE(has(vae, "AutoencoderTiny") && has(vae, "AutoencoderKL")) << vae;
  const auto denoiser = refused("transformer", {"diffusers", "SD3Transformer2DModel"});
  EXPECT_TRUE(has(denoiser, "SD3Transformer2DModel") && has(denoiser, "FluxTransformer2DModel")) << denoiser;
  EXPECT_EQ(refused("transformer", {"diffusers", "Transformer2DModel"}), "no error") << "an older name";
}

TEST(Folder, APipeInPlaceOfAFileIsNamed) {
  for (const char* file : {"model_index.json", "vae/config.json"}) {
    const Copy copy(kGolden / "model");
    fs::remove(copy.path() / file);
    ASSERT_EQ(::mkfifo((copy.path() / file).c_str(), 0600), 0);
    const auto message = open_error(Kind::kCheckpoint, copy.path());
    EXPECT_TRUE(has(message, file) && has(message, "no plain file")) << message;
  }
}

TEST(Folder, ItsOwnDefaultsMustBeOfUse) {
  const Copy copy(kGolden / "model");
  for (const auto& [key, value] :
       {std::pair{"max_sequence_length", Json(-1)}, {"true_cfg_scale", Json("NaN")}}) {
    copy.edit_json("model_index.json", [&key = key, &value = value](Json& j) {
      j["_atelier"] = {{key, value}};
    });
    const auto message = open_error(Kind::kCheckpoint, copy.path());
    EXPECT_TRUE(has(message, "_atelier") && has(message, key)) << message;
  }
}

TEST(Folder, BrokenJsonIsNamed) {
  for (const char* file : {"model_index.json", "transformer/config.json", "scheduler/scheduler_config.json",
                           "vae/config.json", "text_encoder_2/config.json"}) {
    const Copy copy(kGolden / "model");
    write_file_atomically(copy.path() / file, "{\"_class_name\": ");
    EXPECT_TRUE(has(open_error(Kind::kCheckpoint, copy.path()), str(file, " is not valid JSON"))) << file;
    fs::remove(copy.path() / file);
    const auto kind = std::string_view(file) == "model_index.json" ? Kind::kUsage : Kind::kCheckpoint;
    EXPECT_TRUE(has(open_error(kind, copy.path()), file)) << open_error(kind, copy.path());
  }
}

TEST(Folder, ConfigsThatHoldNoObjectOrAWrongTypeAreNamed) {
  for (const char* file : {"transformer/config.json", "scheduler/scheduler_config.json", "vae/config.json",
                           "text_encoder/config.json"}) {
    const Copy copy(kGolden / "model");
    write_file_atomically(copy.path() / file, "[1, 2]");
    const auto message = check_error(copy.path());
    EXPECT_TRUE(has(message, "config.json")) << file << " gave: " << message;
  }
  const Copy copy(kGolden / "model");
  copy.edit_json("transformer/config.json", [](Json& j) { j["num_layers"] = "two"; });
  EXPECT_TRUE(has(check_error(copy.path()), "num_layers must be a whole number, found \"two\""))
      << check_error(copy.path());
}

TEST(Folder, AWrongConfigIsNamedByItsComponentHoweverManyThereAre) {
  const fs::path goldens = kGolden.parent_path();
  const auto expect = [&](const fs::path& model, const std::string& component, const char* key) {
    const Copy copy(model / "model");
    copy.edit_json(component + "/config.json", [&](Json& j) { j[key] = -3; });
    const auto message = check_error(copy.path());
    EXPECT_EQ(message.find(component + "/config.json: " + key), 0U) << message;
  };
  for (const char* encoder : {"text_encoder", "text_encoder_2"})
    expect(goldens / "sdxl_small", encoder, "hidden_size");
  expect(goldens / "flux_dev", "text_encoder_2", "d_ff");
  expect(goldens / "hunyuan_small", "text_encoder", "hidden_size");
  for (const char* expert : {"transformer", "transformer_2"})
    expect(goldens / "wan_experts", expert, "ffn_dim");
  expect(goldens / "wan_experts", "vae", "z_dim");
}

TEST(Folder, KeysThatAreMissingTakeTheReferencesDefaultsAndMustFit) {
  const Copy copy(kGolden / "model");
  copy.edit_json("transformer/config.json", [](Json& j) { j.erase("num_single_layers"); });
  const auto message = check_error(copy.path());  // 38 blocks of which the file holds 3
  EXPECT_TRUE(has(message, "transformer: ")) << message;
  EXPECT_TRUE(has(message, "single_transformer_blocks.3") || has(message, "single.3")) << message;
  copy.edit_json("vae/config.json", [](Json& j) { j.erase("_class_name"); });
  EXPECT_TRUE(has(check_error(copy.path()), "vae/config.json: _class_name is nothing"))
      << check_error(copy.path());
}

TEST(Folder, TensorsThatAreMissingMisshapenOrExtraAreListedTogetherForAllParts) {
  const Copy copy(kGolden / "model");
  copy.edit_tensors(kTransformer, [](weights::Tensors& t) {
    t["proj_out.extra"] = at::zeros({3});
    t.erase("x_embedder.bias");
    t["transformer_blocks.0.ff.net.2.weight"] = at::zeros({64, 255});
  });
  copy.edit_tensors("vae/diffusion_pytorch_model.safetensors",
                    [](weights::Tensors& t) { t.erase("decoder.conv_out.weight"); });
  const auto message = check_error(copy.path());
  EXPECT_TRUE(has(message, "proj_out.extra")) << message;
  EXPECT_TRUE(has(message, "x_embedder.bias")) << message;
  EXPECT_TRUE(has(message, "[64, 255]") && has(message, "[64, 256]")) << message;
  EXPECT_TRUE(has(message, "vae: ") && has(message, "decoder.conv_out.weight")) << message;
}

TEST(Folder, WithoutWeightsOrWithBrokenOnesSaysWhere) {
  const Copy copy(kGolden / "model");
  const auto whole = read_file(copy.path() / kTransformer);
  write_file_atomically(copy.path() / kTransformer, whole.substr(0, whole.size() / 2));
  EXPECT_TRUE(has(check_error(copy.path()), kTransformer)) << check_error(copy.path());
  fs::remove(copy.path() / kTransformer);
  EXPECT_TRUE(has(check_error(copy.path()), "transformer")) << check_error(copy.path());
}

TEST(Folder, ATokenizerThatIsMissingIsNamedBeforeAnythingLoads) {
  const Copy copy(kGolden / "model");
  fs::remove_all(copy.path() / "tokenizer_2");
  const auto missing = check_error(copy.path());
  EXPECT_TRUE(has(missing, "tokenizer_2")) << missing;
}

TEST(Folder, ASingleFileMustHoldTheFamilysDenoiser) {
  const auto message = error_of(Kind::kCheckpoint, [] {
    ModelRepo::open_single_files(std::vector{kGolden / "model/vae/diffusion_pytorch_model.safetensors"},
                                 kGolden / "model");
  });
  EXPECT_TRUE(has(message, "no denoiser of the family flux")) << message;
}

TEST(Folder, AnAutoencoderOfVideosIsNoneOfPictures) {
  const Copy copy(kGolden / "model");
  copy.edit_json("vae/config.json",
                 [](Json& j) { j = read_json("tests/goldens/wan_vae_small/model/one/config.json"); });
  copy.edit_json("model_index.json", [](Json& j) { j["vae"][1] = "AutoencoderKLWan"; });
  const auto said = error_of(Kind::kCheckpoint, [&] { ModelRepo::open(copy.path()).check(); });
  EXPECT_TRUE(has(said, "transformer draws pictures, vae takes videos")) << said;
}

// Configurations of every family that has an encoder which a model may lack.
TEST(Folder, MayLackAnOptionalEncoder) {
  for (const auto* family : models::families()) {
    const auto optional = std::find_if(family->encoders.begin(), family->encoders.end(),
                                       [](const auto& e) { return e.is_optional; });
    if (optional == family->encoders.end()) continue;
    const TemporaryFolder folder;
    const Json configs = family->presets.at(0).make();
    for (const auto& [part, config] : configs.items()) {
      if (!config.is_object() || part == optional->folder) continue;
      fs::create_directories(folder / part);
      write_json(folder / part / (part == "scheduler" ? "scheduler_config.json" : "config.json"), config);
    }
    Json index = {{"_class_name", std::string(family->pipeline)}};
    const std::string name(optional->folder);
    const auto encoders = [&] {
      write_json(folder / "model_index.json", index);
      return ModelRepo::open(folder.path()).encoders().size();
    };
    EXPECT_EQ(encoders(), family->encoders.size() - 1) << "neither named nor there";
    for (const Json& nothing : {Json(), Json::array({nullptr, nullptr})}) {
      index[name] = nothing;
      EXPECT_EQ(encoders(), family->encoders.size() - 1) << nothing;
    }
    index[name] = {"transformers", "T5EncoderModel"};
    write_json(folder / "model_index.json", index);
    EXPECT_TRUE(has(open_error(Kind::kCheckpoint, folder.path()), name)) << "named, but not there";
  }
}

TEST(Folder, DummiesHaveThePublishedSizesAndNoFiles) {
  const auto m = ModelRepo::dummy("FLUX.1-schnell", 3);
  EXPECT_TRUE(m.is_dummy());
  EXPECT_EQ(m.facts().blocks, 57);
  EXPECT_EQ(m.defaults().steps, 4);
  EXPECT_NO_THROW(m.check());
  EXPECT_TRUE(has(error_of(Kind::kUsage, [] { ModelRepo::dummy("FLUX.9", 3); }), "FLUX.1-dev"));
}

TEST(Folder, DummiesAreSavedAsOtherProgramsReadFolders) {
  for (const auto& name : ModelRepo::presets()) {
    const auto m = ModelRepo::dummy(name, 3);
    const auto index = m.saved_index();
    for (const auto& [part, config] : m.index().items()) {
      if (!config.is_object()) continue;
      const bool is_ours = config.contains("_class_name");
      const auto of = is_ours ? config["_class_name"] : config["architectures"].front();
      EXPECT_EQ(index.value(part, Json()), Json({is_ours ? "diffusers" : "transformers", of}))
          << name << part;
    }
    EXPECT_EQ(index["scheduler"][0], "diffusers") << name;
    const Json& vae = m.vae();
    if (vae["_class_name"] != "AutoencoderKL") continue;
    // Without these lists diffusers builds one block.
    for (const auto* list : {"down_block_types", "up_block_types"})
      EXPECT_EQ(vae.value(list, Json::array()).size(), vae["block_out_channels"].size()) << name << list;
  }
}

}  // namespace
}  // namespace atelier::pipeline
