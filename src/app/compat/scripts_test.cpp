// The command lines of the SDXL scripts, and what they come to.
#include "app/compat/scripts.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/layout_choice.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

Resolved resolved(const Arguments& arguments) {
  const Parsed parsed = parse_flags({kScripts, "sdxl", "", {}}, one_spelling(arguments));
  return resolve(kScripts, parsed.flags, {}, parsed.config);
}
Resolved settled(const Arguments& arguments, int devices) {
  auto out = resolved(arguments);
  settle_workers(out, devices);
  return out;
}
std::string refused(const Arguments& arguments, int devices = 4) {
  return message_of(Kind::kUsage, [&] { settled(arguments, devices); });
}
void expect_mentions(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " in: " << text;
}
Arguments joined(const char* line, const Arguments& more = {}) {
  Arguments out = words_of(line);
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

// The guide's command lines behind the script's name, and the mode that the name stands for.
struct Line {
  const char *mode, *flags;
  bool has_adapter;
};
constexpr Line kGuide[] = {
    {"multi", "--prompts data/prompts.csv --output data/images --gpu-ids 0 1 2 3 --max-workers 4", true},
    {"dataparallel", "--prompts data/prompts.csv --output data/images --gpu-ids 0 1 2 3 --batch-size 2",
     true},
    {"single", "--prompts data/prompts.csv --output data/images --device cuda", true},
    {"multi",
     "--prompts data/prompts.csv --gpu-ids 0 1 2 3 --max-workers 4 --width 1024 --height 1024 --steps 50",
     false},
    {"dataparallel",
     "--prompts data/prompts.csv --gpu-ids 0 1 --batch-size 1 --enable-cpu-offload --width 1024 --height "
     "1024 "
     "--steps 50",
     false},
    {"single", "--prompts data/prompts.csv --device cuda --width 512 --height 512 --steps 30", false}};

TEST(Scripts, EveryCommandLineOfTheGuideIsUnderstood) {
  for (const auto& line : kGuide) {
    SCOPED_TRACE(line.flags);
    const auto r = settled(joined(line.flags, {"--mode", line.mode}), 4);
    EXPECT_EQ(r.settings.input.prompts_file, "data/prompts.csv");
    EXPECT_EQ(r.settings.output.output_dir, "data/images");
    if (line.has_adapter) {
      const auto adapted =
          settled(joined(line.flags, {"--mode", line.mode, "--dora-weights", "path/to/dora/weights"}), 4);
      EXPECT_EQ(adapted.settings.input.row.request.lora, std::vector<std::string>{"path/to/dora/weights"});
    }
  }
  const auto budget = resolved(joined(kGuide[5].flags));
  EXPECT_EQ(budget.settings.input.row.request.width, 512);
  EXPECT_EQ(budget.settings.input.row.request.num_inference_steps, 30);
  EXPECT_EQ(budget.origin("num_inference_steps").text, "--steps");
}

TEST(Scripts, HaveTheirOwnDefaults) {
  const auto r = resolved({});
  const auto& request = r.settings.input.row.request;
  EXPECT_EQ(r.settings.model.model_name, "stabilityai/stable-diffusion-xl-base-1.0");
  EXPECT_EQ(request.width, 1024);
  EXPECT_EQ(request.height, 1024);
  EXPECT_EQ(request.num_inference_steps, 50);
  EXPECT_EQ(request.guidance_scale, 7.5);
  EXPECT_EQ(seeds_of(r), (std::vector<uint64_t>{0, 1}));
  EXPECT_TRUE(r.settings.engine.enable_vae_slicing);
  EXPECT_STREQ(half_type(kScripts), "float16");
  EXPECT_STREQ(cpu_offload(kScripts), "sequential");
  EXPECT_STREQ(cpu_offload(kT2i), "model");
}

TEST(Scripts, FlagsThatDisagreeAndWhatHasNoPlaceAreRefused) {
  expect_mentions(refused({"--output", "a", "--output_dir", "b"}), {"--output", "--output_dir", "keep one"});
  EXPECT_EQ(resolved({"--output", "a", "--output_dir", "a"}).settings.output.output_dir, "a");
  expect_mentions(refused({"--prompt", "a fox"}), {"--prompt", "--prompts", "--seeds"});
  expect_mentions(refused({"--seed", "5"}), {"--seed", "--seeds"});
  expect_mentions(refused({"--seeds", "1", "2", "1"}), {"--seeds", "1", "twice"});
  expect_mentions(refused({"--seeds", "-1"}), {"--seeds", "\"-1\""});
  expect_mentions(refused({"--seeds", "one"}), {"--seeds", "\"one\""});
  expect_mentions(refused({"--mode", "many"}), {"many", "dataparallel"});
  expect_mentions(refused({"--steps", "0"}), {"--steps", "1 to 10000"});
  expect_mentions(refused({"--gpu-ids", "0", "0"}), {"--gpu_ids", "twice"});
  expect_mentions(refused({"--gpu-ids", "-1"}), {"--gpu_ids", "-1"});
  expect_mentions(refused({"--gpu-ids", "0", "--device", "cuda:1"}), {"--gpu_ids", "cuda:1"});
  EXPECT_EQ(seeds_of(resolved({"--seeds", "18446744073709551615"})).front(), UINT64_MAX);
}

TEST(Scripts, WorkersAreTheGpusThatMayBeUsed) {
  const auto workers = [](const Arguments& arguments, int devices) {
    return settled(arguments, devices).settings.device.num_gpus;
  };
  EXPECT_EQ(workers({}, 4), "4");
  EXPECT_EQ(workers({"--max-workers", "2"}, 4), "2");
  EXPECT_EQ(workers({"--gpu-ids", "1", "3"}, 2), "2");
  EXPECT_EQ(workers({"--mode", "dataparallel"}, 4), "4");
  EXPECT_EQ(workers({"--mode", "single"}, 4), "1");
  EXPECT_EQ(workers({"--device", "cuda:1"}, 4), "1");
  EXPECT_EQ(workers({}, 0), "1");
  EXPECT_EQ(workers({"--device", "cpu", "--gpu-ids", "0", "1", "2", "--max-workers", "4"}, 0), "3");
  EXPECT_EQ(workers({"--device", "cpu", "--max-workers", "4"}, 0), "4");
  expect_mentions(refused({"--gpu-ids", "0", "1", "7"}, 2), {"--gpu_ids", "no GPU 7", "--device cpu"});
  const auto many = settled({"--max-workers", "4"}, 2);
  EXPECT_EQ(many.settings.device.num_gpus, "2");
  ASSERT_EQ(many.notes.size(), 1u);
  expect_mentions(many.notes[0], {"--max_workers 4", "2 GPUs"});
}

TEST(Scripts, ABatchIsEveryWorkersOwnWhereEachDrawsForItself) {
  EXPECT_EQ(settled({"--batch-size", "2"}, 4).settings.input.batch_size, 8);
  EXPECT_EQ(settled({"--batch-size", "2", "--mode", "dataparallel"}, 4).settings.input.batch_size, 2);
}

TEST(Scripts, NamedGpusAreTheOnlyOnesThatAreSeen) {
  const auto seen = [](const char* before, const Arguments& arguments) {
    before ? ::setenv("CUDA_VISIBLE_DEVICES", before, 1) : ::unsetenv("CUDA_VISIBLE_DEVICES");
    show_gpus(resolved(arguments));
    const char* after = std::getenv("CUDA_VISIBLE_DEVICES");
    std::string out = after ? after : "(all)";
    ::unsetenv("CUDA_VISIBLE_DEVICES");
    ::unsetenv("CUDA_DEVICE_ORDER");
    return out;
  };
  EXPECT_EQ(seen(nullptr, {}), "(all)");
  EXPECT_EQ(seen(nullptr, {"--gpu-ids", "3", "1"}), "3,1");
  EXPECT_EQ(seen("4,5,6", {"--gpu-ids", "2", "0"}), "6,4");
  message_of(Kind::kUsage, [&] { seen("4,5,6", {"--gpu-ids", "3"}); });
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST(Scripts, ModesSayHowGpusShareTheWork) {
  plan::LayoutQuery query{{.name = "small", .heads = 12, .blocks = 8},
                          {.image_tokens = 256, .text_tokens = 32, .branches = 2, .steps = 12, .batch = 1}};
  const auto layout = [&](const Arguments& arguments, int batch) {
    query.work.batch = batch;
    const Machine machine{.device = {c10::Device(c10::kCPU), ""}};
    return plan::to_string(choose_layout(settled(arguments, 0), query, machine).degrees);
  };
  const Arguments four{"--device", "cpu", "--max-workers", "4"};
  const auto with = [&](const char* mode) {
    auto out = four;
    out.insert(out.end(), {"--mode", mode});
    return out;
  };
  EXPECT_EQ(layout(with("multi"), 1), "data=4");
  EXPECT_EQ(layout(with("dataparallel"), 2), "data=2, cfg=2");
  EXPECT_EQ(layout(with("dataparallel"), 1), "cfg=2, ulysses=2");
  EXPECT_EQ(layout(with("single"), 1), layout({}, 1));
}

TEST(Scripts, TablesOfPicturesLieAboveThePicturesAndAreNamedByMode) {
  EXPECT_EQ(list_file(resolved({"--output", "/a/images/"})), "/a/generated_multi_gpu.csv");
  EXPECT_EQ(list_file(resolved({"--output", "/a/images", "--mode", "dataparallel"})),
            "/a/generated_dataparallel.csv");
  EXPECT_EQ(list_file(resolved({"--mode", "single"})).filename(), "generated.csv");
  const auto r = resolved({"--gpu-ids", "3", "1"});
  EXPECT_EQ(gpu_of(r, true, 1), "1");
  EXPECT_EQ(gpu_of(resolved({}), true, 1), "1");
  EXPECT_EQ(gpu_of(r, false, 1), "");
}

}  // namespace
}  // namespace atelier::app
