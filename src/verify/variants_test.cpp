// Further recorded cases, made by tests/goldens/make.py: other widths, sizes, calls and formulas than
// the first ones.
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "nn/testing.h"
#include "pipeline/testing.h"
#include "plan/parallel_config.h"
#include "verify/verify.h"

namespace atelier::verify {
namespace {

using nn::error_of;
using nn::has;
using pipeline::Copy;

const std::filesystem::path kGoldens = "tests/goldens";
constexpr const char* kRecorded = "golden.safetensors";

std::string wrong_rows(const Comparison& c) {
  std::string all;
  for (const auto& r : c.rows) {
    if (r.verdict != Verdict::kPass) all += r.name + (r.note.empty() ? "" : " (" + r.note + ")") + "; ";
  }
  return all;
}

const ComparisonRow& row(const Comparison& c, const std::string& name) {
  const auto at =
      std::find_if(c.rows.begin(), c.rows.end(), [&](const ComparisonRow& r) { return r.name == name; });
  if (at == c.rows.end()) throw std::runtime_error("no row " + name);
  return *at;
}

TEST(Variants, OfEveryKindPass) {
  for (const char* name :
       {"flux_two_branches", "vae_sizes", "wan_vae_small", "scheduler_formulas", "encoder_forms"}) {
    const auto c = verify({.folder = kGoldens / name});
    EXPECT_TRUE(c.passed()) << name << ": " << wrong_rows(c);
    EXPECT_GT(c.rows.size(), 20u) << name;
  }
}

// Three latent rows on two, three and four ranks: uneven, and one without any.
TEST(Variants, AutoencodersPassByRows) {
  for (const char* layout :
       {"ring=2, parallel_vae", "ulysses=3, parallel_vae", "ring=2, ulysses=2, parallel_vae"}) {
    for (const char* name : {"wan_vae_small", "vae_sizes"}) {
      const auto c = verify({.folder = kGoldens / name, .degrees = plan::parse_strategy(layout)});
      EXPECT_TRUE(c.passed()) << layout << " " << name << ": " << wrong_rows(c);
      EXPECT_GT(c.rows.size(), 20u);
    }
  }
}

// Image to image, and a masked run of the same call, whose schedules are recorded whole.
TEST(Variants, EditsPassUnderLayouts) {
  for (const char* layout :
       {"data=1", "ulysses=2", "ring=2", "cfg=2", "pipefusion=2, sync", "ring=2, parallel_vae"}) {
    const auto c = verify({.folder = kGoldens / "flux_edits", .degrees = plan::parse_strategy(layout)});
    EXPECT_TRUE(c.passed()) << layout << ": " << wrong_rows(c);
    for (const char* name : {"image", "timesteps", "image.moments", "masked.image", "masked.step3.latents"})
      EXPECT_EQ(row(c, name).verdict, Verdict::kPass) << layout << " " << name;
  }
}

// FluxImg2ImgPipeline and FluxInpaintPipeline, 7; FluxPipeline has 3.5.
TEST(Variants, EditsHaveTheGuidanceOfTheirPipelines) {
  const auto difference = [](const Json& guidance) {
    const Copy copy(kGoldens / "flux_edits");
    copy.edit_json("golden.json", [&](Json& j) { j["call"]["guidance_scale"] = guidance; });
    const auto c = verify({.folder = copy.path()});
    return std::pair(row(c, "latents.final").max, row(c, "masked.latents.final").max);
  };
  EXPECT_EQ(difference(nullptr), difference(7.0));
  EXPECT_NE(difference(nullptr), difference(3.5));
}

TEST(Variants, EditsCanFail) {
  const Copy copy(kGoldens / "flux_edits");
  copy.edit_json("golden.json", [](Json& j) { j["masked_run"]["strength"] = 0.5; });
  EXPECT_EQ(row(verify({.folder = copy.path()}), "masked.latents.final").verdict, Verdict::kFail);
  copy.edit_json("golden.json", [](Json& j) { j["masked_run"]["mask_image"] = "other.png"; });
  EXPECT_EQ(row(verify({.folder = copy.path()}), "masked.latents.final").verdict, Verdict::kFail);
  copy.edit_json("golden.json", [](Json& j) { j["call"]["image"] = "none.png"; });
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { verify({.folder = copy.path()}); }), "none.png"));
}

// Videos: two experts, tokens of two times, frames that an image encoder sees too, a control stream.
TEST(Variants, VideosPassUnderLayouts) {
  for (const char* name : {"wan_experts", "wan_first", "wan_frames", "wan_steered"}) {
    for (const char* layout : {"data=1", "cfg=2", "ulysses=2", "ring=3", "tensor=3", "pipefusion=2, sync"}) {
      const auto c = verify({.folder = kGoldens / name, .degrees = plan::parse_strategy(layout)});
      EXPECT_TRUE(c.passed()) << name << " " << layout << ": " << wrong_rows(c);
      EXPECT_GT(c.rows.size(), 20u) << name;
    }
  }
}

// Step caches: diffusers' first block, with one denoiser and with two, and TeaCache's rule written
// out in Python.
TEST(Variants, StepCachesPassUnderLayouts) {
  for (const char* name : {"flux_cached", "wan_cached"}) {
    for (const char* layout : {"data=1", "cfg=2", "ulysses=2", "ring=2", "tensor=2", "cfg=2, ring=2"}) {
      const auto c = verify({.folder = kGoldens / name, .degrees = plan::parse_strategy(layout)});
      EXPECT_TRUE(c.passed()) << name << " " << layout << ": " << wrong_rows(c);
      EXPECT_GT(c.rows.size(), 20u) << name;
    }
  }
}

TEST(Variants, StepCachesCanFail) {
  const Copy copy(kGoldens / "flux_cached");
  copy.edit_json("golden.json", [](Json& j) { j["call"]["cache_threshold"] = 0.6; });
  const auto less = verify({.folder = copy.path()});
  EXPECT_EQ(row(less, "step3.latents").verdict, Verdict::kPass);
  EXPECT_EQ(row(less, "step4.model_out").verdict, Verdict::kPass);
  EXPECT_EQ(row(less, "step4.model_out.1").verdict, Verdict::kFail) << "that branch is computed now";
  copy.edit_json("golden.json", [](Json& j) { j["tea_run"]["cache_threshold"] = 2.2; });
  EXPECT_EQ(row(verify({.folder = copy.path()}), "tea.step4.model_out").verdict, Verdict::kFail);
  copy.edit_json("golden.json", [](Json& j) { j["call"]["cache_type"] = "deep_cache"; });
  EXPECT_TRUE(
      has(error_of(Kind::kUsage, [&] { verify({.folder = copy.path()}); }), "first_block_cache, teacache"));
}

// Both branches are listened to, on whichever rank they run.
TEST(Variants, TwoBranchesPassUnderLayouts) {
  for (const char* layout : {"cfg=2", "cfg=2, ulysses=2", "ring=3", "tensor=2", "pipefusion=3, sync"}) {
    const auto c =
        verify({.folder = kGoldens / "flux_two_branches", .degrees = plan::parse_strategy(layout)});
    EXPECT_TRUE(c.passed()) << layout << ": " << wrong_rows(c);
  }
}

// What the reference encodes once for all prompts of a list.
TEST(Variants, OneNegativePromptIsThatOfEveryPrompt) {
  const Copy copy(kGoldens / "flux_two_branches");
  copy.edit_json("golden.json", [](Json& j) {
    auto& call = j["call"];
    for (const char* name : {"prompt", "prompt_2"}) call[name] = {call[name], call[name]};
    call.erase("num_images_per_prompt");
  });
  const auto c = verify({.folder = copy.path()});
  EXPECT_TRUE(c.passed()) << wrong_rows(c);
  EXPECT_EQ(row(c, "negative.embeds").verdict, Verdict::kPass);
}

// In every kind of folder a changed value fails its row, and what nobody computes is missing.
TEST(Variants, RowsCanFailAndBeMissing) {
  struct Case {
    const char *folder, *changed, *added;
  };
  for (const auto& [folder, changed, added] :
       {Case{"flux_two_branches", "block.transformer_blocks.0.1@1", "block.transformer_blocks.1.0@1"},
        Case{"flux_two_branches", "step1.model_out.1", "step2.model_out.1"},
        Case{"flux_two_branches", "negative.last_hidden_state.text_encoder_2", "negative.mask"},
        Case{"vae_sizes", "vae_plain.block.decoder.conv_norm_out", "vae_plain.block.decoder.up_blocks.2"},
        Case{"vae_sizes", "vae_three.encode_tiled.moments", "vae_three.block.decoder.conv_sum"},
        Case{"wan_vae_small", "one.f9.chunk.decoder.up_blocks.0@2", "one.f9.chunk.decoder.up_blocks.0@9"},
        Case{"wan_vae_small", "two.tiled.decoded", "two.tiled.moments"},
        Case{"scheduler_formulas", "flow_linear.7.x", "flow_linear.9.x"},
        Case{"encoder_forms", "masked_eos.text_embeds", "small.text_embeds"},
        Case{"encoder_forms", "words.long_last_hidden_state", "words.skip9_final_norm"}}) {
    const Copy copy(kGoldens / folder);
    copy.edit_tensors(kRecorded, [changed = changed, added = added](weights::Tensors& t) {
      t.at(changed).flatten()[0] += 1e-3 * t.at(changed).abs().max();
      t[added] = at::zeros({1});
    });
    const auto c = verify({.folder = copy.path()});
    EXPECT_EQ(row(c, changed).verdict, Verdict::kFail) << changed;
    EXPECT_EQ(row(c, added).verdict, Verdict::kMissing) << added;
    EXPECT_EQ(c.count(Verdict::kFail) + c.count(Verdict::kMissing), 2) << folder << ": " << wrong_rows(c);
  }
}

// Whatever module outside the blocks a recording names.
TEST(Variants, OuterModulesAreProduced) {
  struct Case {
    const char* folder;
    std::vector<std::string> names;
  };
  std::vector<std::string> wan;
  for (const char* name : {"encoder.conv_in", "encoder.down_blocks.0", "encoder.down_blocks.4@2",
                           "encoder.norm_out", "encoder.nonlinearity@1", "encoder.conv_out", "encoder",
                           "decoder.conv_in@2", "decoder.mid_block.attentions.0", "decoder.norm_out",
                           "decoder.nonlinearity", "decoder.conv_out", "decoder@2", "post_quant_conv"})
    wan.push_back(str("one.f9.chunk.", name));
  for (const auto& [folder, names] :
       {Case{"wan_vae_small", wan},
        Case{"wan_vae_small", {"two.f5.chunk.encoder.down_blocks.2@1", "two.f5.chunk.encoder.down_blocks.0"}},
        Case{"sdxl_small", {"block.time_proj", "block.add_time_proj"}},
        Case{"pixart_small", {"block.norm_out"}},
        Case{"wan_first", {"block.condition_embedder.0", "block.condition_embedder.1@1"}}}) {
    const Copy copy(kGoldens / folder);
    copy.edit_tensors(kRecorded, [&names = names](weights::Tensors& t) {
      for (const auto& name : names) t[name] = at::zeros({1});
    });
    const auto c = verify({.folder = copy.path()});
    for (const auto& name : names) EXPECT_EQ(row(c, name).verdict, Verdict::kFail) << name;
    EXPECT_EQ(c.count(Verdict::kMissing), 0) << wrong_rows(c);
  }
}

TEST(Variants, OuterModulesAreThoseOfTheReference) {
  const Copy pictures(kGoldens / "vae_sizes"), videos(kGoldens / "wan_vae_small"),
      sdxl(kGoldens / "sdxl_small");
  pictures.edit_tensors(kRecorded, [](weights::Tensors& t) {
    for (const std::string half : {"vae_three.block.encoder", "vae_plain.block.decoder"}) {
      t[half] = t.at(half + ".conv_out");
      t[half + ".conv_act"] = at::silu(t.at(half + ".conv_norm_out"));
    }
  });
  videos.edit_tensors(kRecorded, [](weights::Tensors& t) {
    t["one.f9.chunk.quant_conv"] = t.at("one.f9.moments");
    for (const char* name : {"encoder.mid_block.resnets.1", "decoder.mid_block.resnets.1"})
      t[str("two.f5.chunk.", name)] = t.at(str("two.f5.chunk.", name).substr(0, 30));
  });
  sdxl.edit_tensors(kRecorded,
                    [](weights::Tensors& t) { t["block.conv_act"] = at::silu(t.at("block.conv_norm_out")); });
  for (const auto* copy : {&pictures, &videos, &sdxl}) {
    const auto c = verify({.folder = copy->path()});
    EXPECT_TRUE(c.passed()) << wrong_rows(c);
  }
}

std::string refused(const char* folder, const std::function<void(Json&)>& change) {
  const Copy copy(kGoldens / folder);
  copy.edit_json("golden.json", change);
  return error_of(Kind::kUsage, [&] { verify({.folder = copy.path()}); });
}

TEST(Variants, ArgumentsThatNobodyUnderstandsAreNamed) {
  const auto two = refused("flux_two_branches", [](Json& j) {
    j["call"]["cross_attention_kwargs"] = {{"scale", 1}}, j["call"]["ip_adapter_image"] = "a.png";
  });
  EXPECT_TRUE(has(two, "cross_attention_kwargs, ip_adapter_image")) << two;
  const auto texts = refused("flux_two_branches", [](Json& j) { j["call"]["negative_prompt"] = {"a", "b"}; });
  EXPECT_TRUE(has(texts, "2 values as negative_prompt for 1 prompts")) << texts;
  const auto scheduler = refused("scheduler_formulas", [](Json& j) {
    j["schedulers"]["flow_shift"]["set_timesteps"]["3"]["strength"] = 0.5;
  });
  EXPECT_TRUE(has(scheduler, "flow_shift, 3 steps has strength")) << scheduler;
  const auto list = refused("scheduler_formulas", [](Json& j) {
    j["schedulers"]["flow_linear"]["set_timesteps"]["3"]["sigmas"] = "linspace(0, 1, n)";
  });
  EXPECT_TRUE(has(list, "linspace(0, 1, n)")) << list;
  const auto encoder = refused("encoder_forms", [](Json& j) { j["encoders"]["small"]["clip_skip"] = 1; });
  EXPECT_TRUE(has(encoder, "encoder small has clip_skip")) << encoder;
  EXPECT_EQ(refused("flux_two_branches", [](Json& j) { j["call"]["sigmas"] = nullptr; }), "no error");
  // what other families understand
  const std::tuple<const char*, const char*, Json> others[] = {
      {"flux_two_branches", "prompt_3", "a"},           {"flux_two_branches", "clip_skip", 1},
      {"sdxl_small", "negative_prompt_3", "a"},         {"sdxl_small", "max_sequence_length", 8},
      {"hunyuan_small", "max_sequence_length", 8},      {"pixart_small", "prompt_2", "a"},
      {"flux_two_branches", "original_size", {8, 8}},   {"pixart_small", "crops_coords_top_left", {0, 0}},
      {"hunyuan_small", "negative_target_size", {8, 8}}};
  for (const auto& [folder, name, value] : others) {
    const auto problem = refused(folder, [&](Json& j) { j["call"][name] = value; });
    EXPECT_TRUE(has(problem, name)) << folder << ": " << problem;
  }
}

TEST(Variants, TilesAreThoseThatAreRecorded) {
  const Copy copy(kGoldens / "vae_sizes");
  const auto with = [&](const Json& tiling) {
    copy.edit_json("golden.json", [&](Json& j) { j["tiling"] = tiling; });
    return verify({.folder = copy.path()});
  };
  const Json own = {{"tile_sample_min_size", 16}, {"tile_latent_min_size", 4}, {"tile_overlap_factor", 0.25}};
  EXPECT_TRUE(with({{"vae_three", own}}).passed());
  const auto other = with({{"vae_three", {{"tile_overlap_factor", 0.5}}}});
  EXPECT_EQ(row(other, "vae_three.decode_tiled").verdict, Verdict::kFail);
  EXPECT_EQ(row(other, "vae_three.encode_tiled.moments").verdict, Verdict::kFail);
  EXPECT_EQ(other.count(Verdict::kFail), 2) << wrong_rows(other);
  EXPECT_EQ(row(with({{"tile_sample_min_size", 20}}), "vae_plain.decode_tiled").verdict, Verdict::kFail)
      << "of every autoencoder";
  const auto error = [&](const Json& tiling) { return error_of(Kind::kUsage, [&] { with(tiling); }); };
  EXPECT_TRUE(has(error({{"tile_height", 8}}), "tile_height"));
  EXPECT_TRUE(has(error({{"vae_three", {{"tile_latent_min_size", 5}}}}), "holds 4 latents"));
}

TEST(Variants, TheFormulaIsTheOneThatIsRecorded) {
  const Copy copy(kGoldens / "scheduler_formulas");
  const auto with = [&](const char* text) {
    copy.edit_json("golden.json", [&](Json& j) { j["model_function"] = text; });
    return error_of(Kind::kUsage, [&] {
      const auto c = verify({.folder = copy.path()});
      EXPECT_EQ(c.count(Verdict::kFail), 12) << wrong_rows(c);
    });
  };
  EXPECT_EQ(with("-x_in**2 / (1.6 + abs(x)) + exp(-t / 250) * cos(0.02 * t)"), "no error");
  EXPECT_TRUE(has(with("x + noise"), "at noise:"));
  copy.edit_json("golden.json", [](Json& j) { j.erase("model_function"); });
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { verify({.folder = copy.path()}); }), "no model_function"));
}

TEST(Variants, ARecordedSecondPromptIsUsed) {
  const Copy copy(kGoldens / "flux_two_branches");
  copy.edit_json("golden.json",
                 [](Json& j) { std::swap(j["call"]["negative_prompt_2"], j["call"]["prompt_2"]); });
  const auto c = verify({.folder = copy.path()});
  EXPECT_EQ(row(c, "prompt.input_ids.text_encoder").verdict, Verdict::kPass);
  EXPECT_EQ(row(c, "prompt.input_ids.text_encoder_2").verdict, Verdict::kFail);
  EXPECT_EQ(row(c, "negative.input_ids.text_encoder_2").verdict, Verdict::kFail);
}

}  // namespace
}  // namespace atelier::verify
