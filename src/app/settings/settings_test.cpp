// Flags, files, environment: every flag is known, the right one wins, and what cannot be honoured is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/compat/unsupported.h"
#include "app/run/requests.h"
#include "app/settings/resolve.h"
#include "base/error.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

Resolved resolved(const Arguments& arguments, Surface surface = kT2i, const Environment& variables = {}) {
  const Parsed parsed = parse_flags({surface, "test", "", {}}, one_spelling(arguments));
  return resolve(surface, parsed.flags, variables, parsed.config);
}

std::string refused(const Arguments& arguments, Surface surface = kT2i, const Environment& variables = {}) {
  return message_of(Kind::kUsage, [&] { resolved(arguments, surface, variables); });
}

void expect_mentions(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words)
    EXPECT_NE(text.find(word), std::string::npos) << "\"" << word << "\" in: " << text;
}

TEST(Flags, WhatIsNotBuiltIsRefusedByName) {
  for (const Unsupported& u : unsupported_settings()) {
    if (u.treated != Treated::kRefused || u.surfaces == 0) continue;
    const Surface surface = u.surfaces & kT2i ? kT2i : u.surfaces & kRun ? kRun : kScripts;
    const std::string flag = "--" + std::string(u.name);
    Arguments arguments{flag};
    if (u.takes != Unsupported::Takes::kSwitch) arguments.push_back("77");
    expect_mentions(refused(arguments, surface), {flag, std::string(u.why)});
    if (u.takes == Unsupported::Takes::kValue)
      EXPECT_NO_THROW(resolved({flag + "=" + std::string(u.neutral)}, surface)) << flag;
  }
}

TEST(Flags, WhatHasNoEffectIsNotedOnce) {
  for (const Unsupported& u : unsupported_settings()) {
    if (u.treated != Treated::kNoted || u.surfaces == 0) continue;
    Arguments arguments{"--" + std::string(u.name)};
    if (u.takes != Unsupported::Takes::kSwitch) arguments.push_back("7");
    const auto notes = resolved(arguments, u.surfaces & kT2i ? kT2i : kRun).notes;
    ASSERT_EQ(notes.size(), 1u) << u.name;
    expect_mentions(notes[0], {std::string(u.name), "no effect"});
  }
}

TEST(Flags, UnknownOnesNameTheNearest) {
  expect_mentions(refused({"--heigth", "64"}), {"--heigth", "--height"});
  expect_mentions(refused({"stray"}), {"\"stray\""});
  expect_mentions(refused({"--steps", "4"}), {"--steps; did you mean --num_inference_steps?"});
  expect_mentions(refused({"--negative", "x"}), {"did you mean --negative_prompt?"});
  expect_mentions(refused({"--shift", "3"}), {"did you mean --scheduler_shift?"});
  expect_mentions(refused({"--sampler", "eulr"}), {"sampler", "euler"});
  EXPECT_EQ(refused({"--lowvram", "x"}), "unknown flag --lowvram; --help lists all");
  expect_mentions(refused({"--memory", "x"}), {"given, auto", "\"x\""});
  refused({"--height"});
  refused({"--prompt"});
}

TEST(Flags, WithoutTheirValueAreNamed) {
  expect_mentions(refused({"--seed"}), {"--seed needs a value"});
  expect_mentions(refused({"--prompt", "--seed", "1"}), {"--prompt needs a value"});
  expect_mentions(refused({"--output_dir", "--seed=1"}), {"--output_dir needs a value"});
  EXPECT_EQ(resolved({"--prompt=--seed"}).settings.input.texts_of("prompt"),
            std::vector<std::string>{"--seed"});
}

TEST(Flags, AttentionIsKnownInAnyCaseAndDtypesNameTheFlag) {
  EXPECT_EQ(resolved({"--attention_backend", "FLASH"}).settings.engine.attention_backend, "flash");
  expect_mentions(refused({"--torch_dtype", "int7"}), {"--torch_dtype", "int7", "float32"});
}

TEST(Prompts, OfTheCommandLineAreCheckedLikeRows) {
  const auto reason = [](const Arguments& arguments) {
    return message_of(Kind::kUsage, [&] { read_prompts(resolved(arguments)); });
  };
  expect_mentions(reason({}), {"--prompt", "--prompts_file"});
  expect_mentions(reason({"--prompt", " "}), {"--prompt is empty"});
  expect_mentions(reason({"--prompt", "\xff"}), {"--prompt is not UTF-8"});
  expect_mentions(reason({"--prompt", "x", "--negative_prompt", "\xff"}), {"--negative_prompt is not UTF-8"});
  expect_mentions(reason({"--prompt", "x", "--lora", "s\xff.safetensors:0.5"}),
                  {"--lora: the path \"s", "is not UTF-8"});
  const Scratch dir;
  const std::string file = dir.write("p.txt", "from the file\n").string();
  EXPECT_EQ(read_prompts(resolved({"--prompt", "", "--prompts_file", file})).rows.front().request.prompt,
            "from the file");
}

TEST(Flags, LastOneWinsAndListsKeepAll) {
  EXPECT_EQ(resolved({"--height", "64", "--height=128"}).settings.input.row.request.height, 128);
  EXPECT_EQ(resolved({"--prompt", "a", "b", "--seed", "1"}).settings.input.texts_of("prompt"),
            (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(resolved({"--attn_layer_num_for_pp", "10", "9"}).settings.backend.attn_layer_num_for_pp,
            (std::vector<int>{10, 9}));
  EXPECT_EQ(resolved({"--attn-layer-num-for-pp=10,9"}).settings.backend.attn_layer_num_for_pp,
            (std::vector<int>{10, 9}));
}

TEST(Flags, ValuesKeepTheirDashes) {
  EXPECT_EQ(resolved({"--prompt=--a-b"}).settings.input.texts_of("prompt").front(), "--a-b");
  EXPECT_EQ(resolved({"--prompt", "well-known words"}).settings.input.texts_of("prompt").front(),
            "well-known words");
  EXPECT_EQ(resolved({"--negative_prompt", ""}).settings.input.texts_of("negative_prompt"),
            std::vector<std::string>{""});
}

TEST(Flags, BadValuesAreNamed) {
  expect_mentions(refused({"--height", "tall"}), {"--height", "\"tall\"", "integer"});
  expect_mentions(refused({"--height=64.5"}), {"--height", "64.5"});
  expect_mentions(refused({"--guidance_scale", "nan"}), {"--guidance_scale", "finite"});
  expect_mentions(refused({"--ulysses_degree", "99999999999"}), {"99999999999", "from 1 to 10000"});
  expect_mentions(refused({"--seed", "-2"}), {"--seed", "-2"});
  expect_mentions(refused({"--quality", "101"}), {"--quality", "1 to 100"});
  expect_mentions(refused({"--batch-size", "0"}), {"--batch_size", "batch_size must be an integer from 1"});
  expect_mentions(refused({"--true_cfg_scale", "1e38"}), {"--true_cfg_scale", "from 1 to 1000000000"});
  expect_mentions(refused({"--output_format", "tiff"}), {"tiff", "png, jpeg"});
  expect_mentions(refused({"--torch_dtype", "int8"}), {"int8", "bfloat16"});
  expect_mentions(refused({"--resume=perhaps"}), {"resume"});
  expect_mentions(refused({"--node_rank", "2", "--num_nodes", "2"}), {"0 to 1"});
}

TEST(Errors, OfLowerRoomsAreToldWithWhoSetWhatTheyName) {
  const auto r = resolved({"--output-directory", "x", "--seed", "3"});
  EXPECT_EQ(with_origins("cannot use x; choose another output_dir", r),
            "cannot use x; choose another output_dir (output_dir: --output_directory)");
  EXPECT_EQ(with_origins("--output_directory: no output_dir", r), "--output_directory: no output_dir");
  EXPECT_EQ(with_origins("my_output_dir and a seed", r), "my_output_dir and a seed");
}

TEST(Surfaces, HaveTheirOwnDefaults) {
  const auto t2i = resolved({}), run = resolved({}, kRun);
  EXPECT_EQ(t2i.settings.output.output_dir, "./output");
  EXPECT_TRUE(t2i.settings.output.resume);
  EXPECT_FALSE(t2i.settings.input.row.request.seed);
  EXPECT_EQ(run.settings.output.output_dir, ".");
  EXPECT_FALSE(run.settings.output.resume);
  EXPECT_EQ(run.settings.input.row.request.seed, 42u);
  EXPECT_FALSE(resolved({"--no-resume"}).settings.output.resume);
  EXPECT_EQ(resolved({"--model", "x", "--output-directory", "y"}).settings.model.model_name, "x");
}

TEST(ConfigShow, ShowsEverySurface) {
  const auto shown = [](const Arguments& arguments) {
    testing::internal::CaptureStdout();
    EXPECT_EQ(config_command(arguments), 0);
    return testing::internal::GetCapturedStdout();
  };
  const Json run = Json::parse(shown({"show", "run", "--json", "--warmup_calls", "3"}));
  EXPECT_EQ(run["input"]["seed"], 42);
  EXPECT_EQ(run["output"]["warmup_calls"], 3);
  EXPECT_EQ(run["sources"]["warmup_calls"], "--warmup_calls");
  EXPECT_TRUE(Json::parse(shown({"show", "--json"}))["input"]["seed"].is_null());
  expect_mentions(shown({"show", "t2i", "--enable_fuse_qkv"}),
                  {"layout of these: one rank", "note: --enable_fuse_qkv"});
  message_of(Kind::kUsage, [] { config_command({"show", "--num_iterations", "2"}); });
}

TEST(Environment, DegreesAreReadAndBooleansInAllWords) {
  const Environment variables{{"DG_XDIT_DATA_PARALLEL_DEGREE", "2"},
                              {"DG_XDIT_ULYSSES_DEGREE", "3"},
                              {"DG_XDIT_RING_DEGREE", "4"},
                              {"DG_XDIT_PIPEFUSION_DEGREE", "5"},
                              {"DG_XDIT_USE_CFG_PARALLEL", "On"},
                              {"DG_XDIT_KV_GATHER_DEGREE", "8"},
                              {"DG_DEBUG", "TRUE"},
                              {"DG_XDIT_TENSOR_PARALLEL_DEGREE", "6"},
                              {"DG_XDIT_FULLY_SHARD_DEGREE", "7"}};
  const auto r = resolved({}, kT2i, variables);
  const auto& b = r.settings.backend;
  EXPECT_EQ(std::vector({b.data_parallel_degree, b.ulysses_degree, b.ring_degree, b.pipefusion_degree}),
            std::vector({2, 3, 4, 5}));
  EXPECT_TRUE(b.use_cfg_parallel);
  EXPECT_EQ(b.tensor_parallel_degree, 6);
  EXPECT_EQ(b.fully_shard_degree, 7);
  EXPECT_EQ(b.kv_gather_degree, 8);
  EXPECT_TRUE(r.settings.engine.debug);
  EXPECT_EQ(r.origin("ring_degree").text, "DG_XDIT_RING_DEGREE");
}

TEST(Environment, BadValuesAreErrorsAndTyposWarnings) {
  expect_mentions(refused({}, kT2i, {{"DG_XDIT_ULYSSES_DEGREE", "four"}}),
                  {"DG_XDIT_ULYSSES_DEGREE", "four"});
  expect_mentions(refused({}, kT2i, {{"DG_XDIT_USE_CFG_PARALLEL", "ja"}}),
                  {"DG_XDIT_USE_CFG_PARALLEL", "ja"});
  const auto r =
      resolved({}, kT2i, {{"DG_XDIT_ULYSES_DEGREE", "2"}, {"DG_STEP1X_VERSION", "secret"}, {"PATH", "x"}});
  ASSERT_EQ(r.warnings.size(), 1u);
  expect_mentions(r.warnings[0], {"DG_XDIT_ULYSES_DEGREE", "DG_XDIT_ULYSSES_DEGREE"});
  ASSERT_EQ(r.notes.size(), 1u);
  expect_mentions(r.notes[0], {"DG_STEP1X_VERSION"});
  EXPECT_EQ(r.notes[0].find("secret"), std::string::npos);
}

TEST(Environment, KnowsEveryVariableOfDiffgentor) {
  for (const char* name :
       {"DG_SERVE_NUM_INFERENCE_STEPS", "DG_DEBUG_SERVE", "DG_COMPILE_MODE", "DG_CACHE_BRANCH_ID",
        "DG_FBC_THRESHOLD", "DG_GROUP_OFFLOAD_TYPE", "DG_BAGEL_THINK", "DG_EMU35_GPUS_PER_MODEL",
        "DG_DREAMOMNI2_OUTPUT_WIDTH", "DG_FLUX_KONTEXT_OFFLOAD", "DG_HUNYUAN_IMAGE_3_MOE_IMPL",
        "DG_DEEPGEN_IMAGE_RESIZE_MODE", "DG_OPENAI_API_KEYS", "DG_GEMINI_ASPECT_RATIO",
        "DG_PROMPT_ENHANCER_DEBUG_DIR", "DG_FLUX2_ENHANCER_MODE"}) {
    EXPECT_TRUE(resolved({}, kT2i, {{name, "1"}}).warnings.empty()) << name;
  }
}

TEST(Precedence, FlagOverEnvironmentOverFileOverDefault) {
  const Scratch scratch;
  const auto file =
      scratch.write("c.yaml", "ring_degree: 2\nulysses-degree: 2\ndata_parallel_degree: 2\n").string();
  const auto r = resolved({"--config", file, "--ring_degree", "4"}, kT2i,
                          {{"DG_XDIT_RING_DEGREE", "3"}, {"DG_XDIT_ULYSSES_DEGREE", "3"}});
  EXPECT_EQ(r.settings.backend.ring_degree, 4);
  EXPECT_EQ(r.origin("ring_degree").text, "--ring_degree");
  EXPECT_EQ(r.settings.backend.ulysses_degree, 3);
  EXPECT_EQ(r.origin("ulysses_degree").text, "DG_XDIT_ULYSSES_DEGREE");
  EXPECT_EQ(r.settings.backend.data_parallel_degree, 2);
  EXPECT_EQ(r.origin("data_parallel_degree").text, "data_parallel_degree in " + file + ":3");
  EXPECT_EQ(r.origin("tensor_parallel_degree").text, "default");
}

TEST(ConfigFile, TakesEngineNamesSectionsAndRoundTrips) {
  const Scratch scratch;
  const auto engine = scratch.write(
      "engine.json", R"({"model": "mini", "pipefusion_parallel_degree": 2, "use_cfg_parallel": true})");
  const auto r = resolved({"--config", engine.string()});
  EXPECT_EQ(r.settings.model.model_name, "mini");
  EXPECT_EQ(r.settings.backend.pipefusion_degree, 2);
  Json shown = to_json(r.settings);
  shown["sources"] = {{"model_name", "whatever"}};
  const auto again = scratch.write("again.json", shown.dump());
  EXPECT_TRUE(equal(resolved({"--config", again.string()}).settings, r.settings));
  EXPECT_FALSE(equal(resolved({}).settings, r.settings));
}

TEST(ConfigFile, NodeConfigurationIsUnderstood) {
  const Scratch scratch;
  const auto file = scratch.write(
      "node.json",
      R"({"num_gpus": 4, "pipeline_parallel_size": 2, "tensor_parallel_size": 2, "use_fp16": true})");
  const auto r = resolved({"--config", file.string()});
  EXPECT_EQ(r.settings.device.num_gpus, "4");
  EXPECT_EQ(r.settings.backend.pipefusion_degree, 2);
  EXPECT_EQ(r.settings.backend.tensor_parallel_degree, 2);
  EXPECT_EQ(r.settings.device.torch_dtype, "float16");
  const auto both = scratch.write("both.yaml", "use_fp16: true\nuse_bf16: true\n");
  expect_mentions(refused({"--config", both.string()}),
                  {"use_fp16", "use_bf16", "both.yaml:1", "both.yaml:2"});
  expect_mentions(refused({"--config", file.string(), "--torch_dtype", "bf16"}),
                  {"use_fp16", "--torch_dtype"});
}

TEST(ConfigFile, MistakesAreNamedWithTheirPlace) {
  const Scratch scratch;
  expect_mentions(refused({"--config", ""}), {"--config", "an empty name"});
  const auto typo = scratch.write("a.yaml", "seed: 1\nring_degre: 2\n").string();
  expect_mentions(refused({"--config", typo}), {"a.yaml:2", "ring_degre", "ring_degree"});
  const auto type = scratch.write("b.yaml", "ring_degree: two\n").string();
  expect_mentions(refused({"--config", type}), {"b.yaml:1", "two"});
  const auto twice = scratch.write("c.yaml", "model: a\nmodel_name: b\n").string();
  expect_mentions(refused({"--config", twice}), {"model", "model_name", "once"});
  const auto list = scratch.write("d.yaml", "height: [1, 2]\n").string();
  expect_mentions(refused({"--config", list}), {"d.yaml:1", "list"});
  const auto later = scratch.write("e.yaml", "cache_type: pab\n").string();
  expect_mentions(refused({"--config", later}), {"e.yaml:1", "first_block_cache, teacache", "pab"});
  expect_mentions(refused({"--config", (scratch / "none.yaml").string()}), {"none.yaml"});
}

TEST(Optimize, WordsSetWhatNobodyElseSets) {
  const auto r = resolved({"--optimize", "compile,vae_slicing,vae_tiling,flash", "--no_enable_tf32"});
  EXPECT_EQ(r.settings.engine.enable_compile, true);
  EXPECT_TRUE(r.settings.engine.enable_vae_slicing && r.settings.engine.enable_vae_tiling);
  EXPECT_EQ(r.settings.engine.attention_backend, "flash");
  EXPECT_EQ(r.origin("attention_backend").text, "--optimize flash");
  EXPECT_FALSE(r.settings.device.enable_tf32);
  EXPECT_EQ(resolved({"--optimize=flash", "--attention_backend", "sdpa"}).settings.engine.attention_backend,
            "sdpa");
}

TEST(GemmCache, IsTheUsersOwnUnlessSaid) {
  const auto folder_of = [](const Arguments& arguments, const Environment& variables) {
    return resolved(arguments, kT2i, variables).gemm_cache;
  };
  EXPECT_EQ(folder_of({}, {{"HOME", "/home/ada"}}), "/home/ada/.cache/atelier");
  EXPECT_EQ(folder_of({}, {{"HOME", "/home/ada"}, {"XDG_CACHE_HOME", "/fast"}}), "/fast/atelier");
  EXPECT_EQ(folder_of({"--gemm_cache", "~/tables"}, {{"HOME", "/home/ada"}}), "/home/ada/tables");
  EXPECT_EQ(folder_of({"--gemm_cache", "none"}, {{"HOME", "/home/ada"}}), "");
}

TEST(Optimize, UnknownAndUnbuiltWordsAreRefused) {
  expect_mentions(refused({"--optimize", "turbo"}), {"turbo", "vae_slicing"});
  expect_mentions(refused({"--optimize", "layerwise_cast"}),
                  {"layerwise_cast", "is not offered", "--tier fast"});
  expect_mentions(refused({"--optimize", "sage_attention"}), {"sage"});
}

TEST(Refusals, NameWhatThisBuildHas) {
  expect_mentions(refused({"--backend", "openai"}), {"openai", "xdit", "diffusers"});
  expect_mentions(refused({"--model_type", "dalle"}), {"dalle", "flux"});
  expect_mentions(refused({"--attention_backend", "sage"}), {"sage", "INT8"});
  expect_mentions(refused({"--attention_backend", "fa9"}), {"fa9", "xformers"});
  expect_mentions(refused({"--offload", "disk"}), {"--offload", "sequential"});
  expect_mentions(refused({"--verbose", "--quiet"}), {"--verbose", "--quiet"});
  expect_mentions(refused({"--dummy", "FLUX.1-dev", "--model_name", "mini"}), {"--dummy", "--model_name"});
  EXPECT_EQ(resolved({"--attention_backend", "SDPA_FLASH"}).settings.engine.attention_backend, "flash");
  EXPECT_EQ(resolved({"--attention_backend", "SDPA_EFFICIENT"}).settings.engine.attention_backend,
            "efficient");
  EXPECT_EQ(resolved({"--attention_backend", "SDPA_MATH"}).settings.engine.attention_backend, "math");
  EXPECT_EQ(resolved({"--attention_backend", "FLASH-3"}).settings.engine.attention_backend, "flash3");
  const auto fp8 = resolved({"--attention_backend", "FLASH_3_FP8"}).settings.engine;
  EXPECT_EQ(fp8.attention_backend, "flash3");
  EXPECT_EQ(fp8.attention_dtype, "fp8_e4m3");
  expect_mentions(refused({"--attention_backend", "flash_3_fp8", "--attention_dtype", "auto"}),
                  {"--attention_backend", "--attention_dtype", "auto"});
  EXPECT_EQ(resolved({"--attention_dtype", "fp8_e4m3"}).settings.engine.tier, "exact");
  expect_mentions(refused({"--attention_dtype", "fp4"}), {"fp4", "fp8_e4m3"});
  EXPECT_EQ(resolved({"--use_fp8_gemms"}).settings.engine.tier, "fast");
  EXPECT_EQ(resolved({"--use_fp8_gemms", "--tier", "fast-strict"}).settings.engine.tier, "fast-strict");
  expect_mentions(refused({"--use_fp8_gemms", "--tier", "exact"}), {"--use_fp8_gemms", "--tier", "exact"});
  expect_mentions(refused({"--tier", "faster"}), {"faster", "fast-strict"});
  EXPECT_EQ(resolved({"--enable_xformers"}).settings.engine.attention_backend, "xformers");
}

TEST(Fields, HaveDistinctNamesInEverySpelling) {
  Settings settings;
  std::map<std::string, std::string> seen;
  settings.fields([&](const std::string&, const Field& field, const FieldRef&) {
    auto names = words_of(field.aliases);
    names.emplace_back(field.name);
    for (const auto& name : names) {
      EXPECT_TRUE(seen.emplace(name, field.name).second) << name << " is also " << seen[name];
    }
  });
}

TEST(Settings, TextOfAFileIsTakenAsItIsWritten) {
  const Scratch dir;
  const auto file =
      dir.write("c.yaml", "prompt: [yes, 007]\nnegative_prompt: no\noutput_dir: ~/x\nresume: no\n");
  const auto r = resolved({"--config", file.string()}, kT2i, {{"HOME", "/h"}});
  EXPECT_EQ(r.settings.input.texts_of("prompt"), (std::vector<std::string>{"yes", "007"}));
  EXPECT_EQ(r.settings.input.texts_of("negative_prompt"), std::vector<std::string>{"no"});
  EXPECT_EQ(r.settings.output.output_dir, "/h/x");
  EXPECT_FALSE(r.settings.output.resume);
}

TEST(Settings, HomesStandInThePlaceOfTildes) {
  const auto input =
      resolved({"--lora=~/s:0.5;~/t", "--image=~/a.png", "--reference_images", "~/b.png", "c.png"}, kT2i,
               {{"HOME", "/h"}})
          .settings.input;
  EXPECT_EQ(input.row.request.lora, (std::vector<std::string>{"/h/s:0.5;/h/t"}));
  EXPECT_EQ(input.texts_of("image"), std::vector<std::string>{"/h/a.png"});
  EXPECT_EQ(input.row.request.reference_images, (std::vector<std::string>{"/h/b.png", "c.png"}));
}

TEST(Prompts, RunDrawsItsOwnWhereNoneIsGivenAndSaysSo) {
  const auto prompts = read_prompts(resolved({"--seed", "1"}, kRun));
  EXPECT_EQ(prompts.rows[0].request.prompt, "a fox in the snow");
  EXPECT_EQ(prompts.warnings.size(), 1U);
  message_of(Kind::kUsage, [] { read_prompts(resolved({"--seed", "1"}, kT2i)); });
}

}  // namespace
}  // namespace atelier::app
