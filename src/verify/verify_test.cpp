// The verifier must be able to fail: copies of a recorded folder with one thing changed.
#include "verify/verify.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/files.h"
#include "nn/patchify.h"
#include "pipeline/testing.h"

namespace atelier::verify {

namespace {

using nn::error_of;
using nn::has;

const char* const kRecorded = "golden.safetensors";
const std::filesystem::path kSchedulers = "tests/goldens/schedulers",
                            kAutoencoders = "tests/goldens/vae_sizes";

std::vector<std::string> named(const Comparison& c, Verdict v) {
  std::vector<std::string> names;
  for (const auto& r : c.rows) {
    if (r.verdict == v) names.push_back(r.name);
  }
  return names;
}

const ComparisonRow& row(const Comparison& c, const std::string& name) {
  const auto found =
      std::find_if(c.rows.begin(), c.rows.end(), [&](const ComparisonRow& r) { return r.name == name; });
  if (found == c.rows.end()) throw std::runtime_error("no row " + name);
  return *found;
}

using Names = std::vector<std::string>;

TEST(Verify, PassesOnARecordedPipelineInTheOrderOfComputation) {
  const auto c = verify({.folder = pipeline::kGolden});
  EXPECT_TRUE(c.passed()) << named(c, Verdict::kFail).size() << " failed";
  EXPECT_GE(c.rows.size(), 50u);
  const auto place = [&](const char* name) { return &row(c, name) - c.rows.data(); };
  const char* order[] = {"prompt.input_ids.text_encoder",
                         "prompt.embeds",
                         "block.context_embedder",
                         "step0.model_in",
                         "block.x_embedder",
                         "block.transformer_blocks.0.1",
                         "block.single_transformer_blocks.2.1",
                         "block.proj_out",
                         "step0.model_out",
                         "step0.latents",
                         "step4.latents",
                         "latents.final",
                         "image"};
  for (size_t i = 1; i < std::size(order); ++i) EXPECT_LT(place(order[i - 1]), place(order[i])) << order[i];
  std::ostringstream text;
  print(c, text);
  EXPECT_TRUE(has(text.str(), str(c.rows.size(), " compared, 0 failed, 0 missing\n")));
}

TEST(Verify, PassesWithADenoiserInBfloat16ByItsOwnTolerances) {
  const auto c = verify({.folder = pipeline::kGolden, .denoiser = at::kBFloat16});
  EXPECT_TRUE(c.passed());
  EXPECT_GT(row(c, "step0.model_out").max, 1e-3) << "nothing was computed in bfloat16";
  EXPECT_TRUE(has(row(c, "image").note, "PSNR"));
}

TEST(Verify, RefusesLayoutsThatTheCallDoesNotAllow) {
  const auto refused = [](plan::ParallelConfig d) {
    return error_of(Kind::kUsage, [&] { verify({.folder = pipeline::kGolden, .degrees = d}); });
  };
  EXPECT_TRUE(has(refused({.cfg = 2}), "one branch per step"));
  EXPECT_TRUE(has(refused({.ulysses = 5}), "4 heads: 1 rank would have none"));
  EXPECT_TRUE(has(refused({.pipeline = 6}), "5 blocks: at most 5 stages"));
}

TEST(Verify, PassesUnderOddLayouts) {
  for (const char* layout :
       {"ulysses=3", "ring=5", "ring=7, parallel_vae", "tensor=3", "pipefusion=3, sync, ring=2"}) {
    EXPECT_TRUE(verify({.folder = pipeline::kGolden, .degrees = plan::parse_strategy(layout)}).passed())
        << layout;
  }
}

TEST(Verify, FailsOnChangedValuesAndOnNothingElse) {
  const pipeline::Copy copy(pipeline::kGolden);
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) {
    t.at("block.transformer_blocks.1.0")[0][3][5] += 1e-3;
    t.at("prompt.input_ids.text_encoder_2")[1][2] += 1;
    t.at("sigmas")[2] += 1e-5;
    t.at("image")[1][0][5][5] += 1e-3;
    t.at("step2.latents")[0][0][0] = NAN;
    t["step0.model_out"] = t.at("step0.model_out").narrow(1, 0, 5).clone();
    t["latents.final"] = at::zeros(t.at("latents.final").sizes());
  });
  const auto c = verify({.folder = copy.path()});
  auto failed = named(c, Verdict::kFail);
  std::sort(failed.begin(), failed.end());
  EXPECT_EQ(failed, (Names{"block.transformer_blocks.1.0", "image", "latents.final",
                           "prompt.input_ids.text_encoder_2", "sigmas", "step0.model_out", "step2.latents"}));
  EXPECT_FALSE(c.passed());
  EXPECT_TRUE(has(row(c, "step0.model_out").note, "shape ["));
  std::ostringstream text;
  print(c, text);
  EXPECT_TRUE(has(text.str(), "FAILED") && has(text.str(), " 7 failed, 0 missing\n")) << text.str();
}

TEST(Verify, MissesWhatIsRecordedAndNotProducedUnlessItIsDeeperThanABlock) {
  const pipeline::Copy copy(pipeline::kGolden);
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) {
    t["block.transformer_blocks.0.2"] = at::zeros({1});
    t["step7.latents"] = at::zeros({1});
    t["block.transformer_blocks.0.attn.to_q"] = at::zeros({1});
    t["block.single_transformer_blocks.1.norm.0"] = at::zeros({1});
    t["block.unheard_of"] = t.at("block.proj_out");
    t.erase("block.proj_out");
  });
  const auto c = verify({.folder = copy.path()});
  auto missing = named(c, Verdict::kMissing);
  std::sort(missing.begin(), missing.end());
  EXPECT_EQ(missing, (Names{"block.transformer_blocks.0.2", "block.unheard_of", "step7.latents"}));
  EXPECT_EQ(c.count(Verdict::kFail), 0);
  EXPECT_FALSE(c.passed());
}

TEST(Verify, FailsFromThePlaceOnWhereTheModelDiffers) {
  const pipeline::Copy copy(pipeline::kGolden);
  copy.edit_tensors("model/transformer/diffusion_pytorch_model.safetensors", [](weights::Tensors& t) {
    t.at("single_transformer_blocks.1.proj_out.weight")[4][9] += 0.3;
  });
  const auto c = verify({.folder = copy.path()});
  EXPECT_EQ(row(c, "block.single_transformer_blocks.0.1").verdict, Verdict::kPass);
  for (const char* name :
       {"block.single_transformer_blocks.1.1", "step0.model_out", "step4.latents", "image"}) {
    EXPECT_EQ(row(c, name).verdict, Verdict::kFail) << name;
  }
}

TEST(Verify, UsesTheCallThatIsDescribed) {
  const pipeline::Copy copy(pipeline::kGolden);
  copy.edit_json("golden.json", [](Json& j) { j["call"]["guidance_scale"] = 3.6; });
  EXPECT_EQ(row(verify({.folder = copy.path()}), "block.time_text_embed").verdict, Verdict::kFail);
  copy.edit_json("golden.json", [](Json& j) {
    j["call"]["guidance_scale"] = 3.5;
    std::swap(j["call"]["prompt"][0], j["call"]["prompt"][1]);
  });
  EXPECT_EQ(row(verify({.folder = copy.path()}), "prompt.input_ids.text_encoder").verdict, Verdict::kFail);
}

// The encoders see a prompt once however many pictures it gets; everything behind them has a row per picture.
TEST(Verify, KnowsSeveralPicturesOfOnePrompt) {
  const pipeline::Copy copy(pipeline::kGolden);
  copy.edit_json("golden.json", [](Json& j) {
    j["call"]["prompt"] = j["call"]["prompt"][0];
    j["call"]["num_images_per_prompt"] = 2;
  });
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) {
    const auto twice = at::tensor({0, 0}, at::TensorOptions(at::kLong));
    for (auto& [name, value] : t) {
      const bool once = name.starts_with("prompt.") && name != "prompt.embeds" && name != "prompt.pooled";
      if (value.dim() > 1 && value.size(0) == 2)
        value = once ? value.narrow(0, 0, 1).clone() : value.index_select(0, twice);
    }
  });
  const auto c = verify({.folder = copy.path()});
  EXPECT_TRUE(c.passed()) << ::testing::PrintToString(named(c, Verdict::kFail));
}

// As pipelines do that keep latents as pictures, with a model that learned a variance too.
TEST(Verify, ComparesPicturesAndTheShareOfOutputsThatSamplersTake) {
  const pipeline::Copy copy(pipeline::kGolden);
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) {
    const auto noise = t.at("noise").sizes().vec();
    for (auto& [name, value] : t) {
      if (!name.starts_with("step") || value.dim() != 3) continue;
      value = nn::unpack_2x2(value.transpose(0, 1), noise[2] / 2, noise[3] / 2).contiguous();
      if (name.ends_with("model_out")) value = at::cat({value, value + 7}, 1);
    }
  });
  copy.edit_json("golden.json", [](Json& j) { j["call"]["use_resolution_binning"] = false; });
  auto c = verify({.folder = copy.path()});
  EXPECT_TRUE(c.passed()) << ::testing::PrintToString(named(c, Verdict::kFail));
  EXPECT_TRUE(has(row(c, "step1.model_out").note, "variance"));
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) { t.at("step0.model_out").narrow(1, 0, 1).add_(1); });
  EXPECT_EQ(row(verify({.folder = copy.path()}), "step0.model_out").verdict, Verdict::kFail);
  copy.edit_json("golden.json", [](Json& j) { j["call"]["clean_caption"] = true; });
  const auto cleaned = error_of(Kind::kUsage, [&] { verify({.folder = copy.path()}); });
  EXPECT_TRUE(has(cleaned, "clean_caption true")) << cleaned;
}

// 64 x 96 pixels were drawn: rounded down, or to an entry of a table, whose picture is then cut.
TEST(Verify, DrawsInTheSizeThatTheReferenceRoundedTo) {
  const pipeline::Copy copy(pipeline::kGolden);
  const auto passes = [&] {
    const auto c = verify({.folder = copy.path()});
    return c.passed() ? "" : ::testing::PrintToString(named(c, Verdict::kFail));
  };
  copy.edit_json("golden.json", [](Json& j) { j["call"]["width"] = 79, j["call"]["height"] = 97; });
  EXPECT_EQ(passes(), "");
  copy.edit_json("golden.json", [](Json& j) { j["call"]["width"] = 80; });
  EXPECT_TRUE(has(error_of(Kind::kUsage, passes), "but the call of golden.json makes"));
  copy.edit_json("golden.json", [](Json& j) {
    j["call"]["width"] = 64, j["call"]["height"] = 90, j["call"]["use_resolution_binning"] = true;
  });
  EXPECT_EQ(passes(), "") << "HunyuanDiT's stay whole";
  copy.edit_tensors(kRecorded,
                    [](weights::Tensors& t) { t.at("image") = t.at("image").narrow(2, 3, 90).contiguous(); });
  EXPECT_EQ(passes(), "");
}

TEST(Verify, OnlyNarrowsWhatIsCompared) {
  const auto all = verify({.folder = kSchedulers});
  EXPECT_TRUE(all.passed()) << ::testing::PrintToString(named(all, Verdict::kFail))
                            << ::testing::PrintToString(named(all, Verdict::kMissing));
  EXPECT_EQ(all.rows.size(), 312u);
  const auto flow = verify({.folder = kSchedulers, .only = {"flow_dev*", "flow_sd3*"}});
  EXPECT_TRUE(flow.passed());
  EXPECT_EQ(flow.rows.size(), 56u);
  EXPECT_FALSE(verify({.folder = kSchedulers, .only = {"no_such_name*"}}).passed()) << "nothing was compared";
}

TEST(Verify, SeesAChangedTrajectoryAndAChangedConfig) {
  const pipeline::Copy copy(kSchedulers);
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) { t.at("flow_schnell.4.x")[3][0] += 1e-3; });
  copy.edit_json("model/flow_sd3/scheduler_config.json", [](Json& j) { j["shift"] = 2.9; });
  const auto c = verify({.folder = copy.path(), .only = {"flow_s*"}});
  EXPECT_EQ(row(c, "flow_schnell.4.x").verdict, Verdict::kFail);
  EXPECT_EQ(row(c, "flow_schnell.4.sigmas").verdict, Verdict::kPass);
  EXPECT_EQ(row(c, "flow_sd3.4.timesteps").verdict, Verdict::kFail);
  copy.edit_json("model/flow_sd3/scheduler_config.json", [](Json& j) { j["shift"] = 0; });
  const auto refused = row(verify({.folder = copy.path(), .only = {"flow_s*"}}), "flow_sd3.4.timesteps");
  EXPECT_EQ(refused.verdict, Verdict::kMissing);
  EXPECT_TRUE(has(refused.note, "shift must be above 0")) << refused.note;
}

TEST(Verify, KeysAndNamesThatHoldNoNumberAreNamedOrPassedOver) {
  for (const std::string odd : {"four", "", "0", "99999999999999999999"}) {
    const pipeline::Copy copy(kSchedulers);
    copy.edit_json("golden.json", [&](Json& j) {
      auto& counts = j["schedulers"]["flow_schnell"]["set_timesteps"];
      counts[odd] = *counts.begin();
    });
    const auto said = message_of(Kind::kUsage, [&] { verify({.folder = copy.path(), .only = {"flow_s*"}}); });
    EXPECT_TRUE(has(said, "set_timesteps") && has(said, str("\"", odd, "\""))) << said;
  }
  const pipeline::Copy named(kSchedulers);
  named.edit_tensors(kRecorded, [](weights::Tensors& t) { t[std::string(1'000'000, 'n')] = at::zeros({1}); });
  EXPECT_TRUE(verify({.folder = named.path(), .only = {"flow_schnell*"}}).passed());
}

TEST(Verify, SeesChangedAutoencoders) {
  const pipeline::Copy copy(kAutoencoders);
  copy.edit_tensors(kRecorded, [](weights::Tensors& t) { t.at("vae_three.decode_tiled").add_(3e-4); });
  copy.edit_tensors("model/vae_plain/diffusion_pytorch_model.safetensors",
                    [](weights::Tensors& t) { t.at("decoder.conv_out.bias").add_(1e-3); });
  const auto c = verify({.folder = copy.path(), .only = {"*decode*", "*moments*"}});
  EXPECT_EQ(row(c, "vae_three.decode").verdict, Verdict::kPass);
  EXPECT_EQ(row(c, "vae_three.decode_tiled").verdict, Verdict::kFail);
  EXPECT_EQ(row(c, "vae_plain.decode").verdict, Verdict::kFail);
  EXPECT_EQ(row(c, "vae_plain.encode.moments").verdict, Verdict::kPass);
}

// A folder of tokenizers, made of the pipeline's own.
struct Vocabularies {
  TemporaryFolder folder;
  explicit Vocabularies(const std::string& rows) {
    std::filesystem::create_directories(folder / "model");
    std::filesystem::copy(pipeline::kGolden / "model" / "tokenizer", folder / "model/clip");
    write_json(folder / "golden.json",
               {{"family", "tokenizers"}, {"tokenizers", {{"clip", {{"max_length", 6}}}}}});
    write_file_atomically(folder / "clip.jsonl", rows);
  }
  Comparison result() const { return verify({.folder = folder.path()}); }
};

TEST(Verify, TokenizersMustGiveEveryIdOfEveryText) {
  const auto recorded =
      weights::read_tensors(pipeline::kGolden / kRecorded).at("prompt.input_ids.text_encoder")[0];
  const Json golden = read_json(pipeline::kGolden / "golden.json");
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 5; ++i) ids.push_back(recorded[i].item<int64_t>());
  ids.push_back(recorded[recorded.size(0) - 1].item<int64_t>());  // cut to six, with the end of text
  const Json good{{"text", golden["call"]["prompt"][0]}, {"ids", ids}};
  Json bad = good;
  bad["ids"][3] = 5;
  EXPECT_TRUE(Vocabularies(good.dump() + "\n").result().passed());
  const auto c = Vocabularies(good.dump() + "\n" + bad.dump() + "\n").result();
  EXPECT_FALSE(c.passed());
  EXPECT_TRUE(has(c.rows.at(0).note, "1 texts differ")) << c.rows.at(0).note;
  EXPECT_FALSE(Vocabularies("").result().passed());
}

TEST(Verify, FoldersOfAnotherFormAreErrorsThatNameTheFile) {
  const auto none = error_of(Kind::kUsage, [] { verify({.folder = "no/such"}); });
  EXPECT_TRUE(has(none, "no/such") && has(none, "golden.json")) << none;
  const auto refused = [](const std::function<void(const pipeline::Copy&)>& damage) {
    const pipeline::Copy copy(pipeline::kGolden);
    damage(copy);
    const auto usage = error_of(Kind::kUsage, [&] { verify({.folder = copy.path()}); });
    return usage.starts_with("another kind: ") ? usage.substr(14) : usage;
  };
  const auto call =
      refused([](const pipeline::Copy& c) { c.edit_json("golden.json", [](Json& j) { j.erase("call"); }); });
  EXPECT_TRUE(has(call, "golden.json describes no call")) << call;
  const auto noise =
      refused([](const pipeline::Copy& c) { c.edit_tensors(kRecorded, [](auto& t) { t.erase("noise"); }); });
  EXPECT_TRUE(has(noise, "noise")) << noise;
  const auto file =
      refused([](const pipeline::Copy& c) { write_file_atomically(c.path() / kRecorded, "short"); });
  EXPECT_TRUE(has(file, kRecorded)) << file;
  const auto list =
      refused([](const pipeline::Copy& c) { write_file_atomically(c.path() / "golden.json", "[1]"); });
  EXPECT_TRUE(has(list, "golden.json")) << list;
  const auto flat = refused([](const pipeline::Copy& c) {
    c.edit_tensors(kRecorded, [](auto& t) { t["noise"] = t["noise"].flatten(); });
  });
  EXPECT_TRUE(has(flat, "noise is [") && has(flat, "[B, C, H, W]")) << flat;
  const auto all_flat = refused([](const pipeline::Copy& c) {
    c.edit_tensors(kRecorded, [](auto& t) {
      for (auto& [name, tensor] : t) tensor = name == "noise" ? tensor : tensor.flatten();
    });
  });
  EXPECT_EQ(all_flat.find("Exception raised"), std::string::npos) << all_flat;
  const auto empty =
      refused([](const pipeline::Copy& c) { c.edit_tensors(kRecorded, [](auto& t) { t.clear(); }); });
  EXPECT_TRUE(has(empty, "holds no tensor")) << empty;
  const auto type = refused([](const pipeline::Copy& c) {
    c.edit_json("golden.json", [](Json& j) { j["call"]["height"] = "tall"; });
  });
  EXPECT_TRUE(has(type, "golden.json") && has(type, "height")) << type;
  for (const Json& odd : {Json(1e308), Json(0.5), Json(0), Json(1 << 30), Json("two")}) {
    const auto each = refused([&](const pipeline::Copy& c) {
      c.edit_json("golden.json", [&](Json& j) { j["call"]["num_images_per_prompt"] = odd; });
    });
    EXPECT_TRUE(has(each, "num_images_per_prompt") && has(each, "whole number")) << each;
  }
  const auto wrong = refused([](const pipeline::Copy& c) {
    c.edit_tensors(kRecorded, [](auto& t) { t["noise"] = at::zeros({2, 16, 4, 4}); });
  });
  EXPECT_TRUE(has(wrong, "noise") && has(wrong, "[2, 16, 4, 4]")) << wrong;
  const auto extra = refused([](const pipeline::Copy& c) {
    c.edit_tensors("model/transformer/diffusion_pytorch_model.safetensors",
                   [](auto& t) { t["proj_out.extra"] = at::zeros({1}); });
  });
  EXPECT_TRUE(has(extra, "proj_out.extra")) << extra;
}

}  // namespace
}  // namespace atelier::verify
