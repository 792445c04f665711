// What is refused for want of room, by numbers that no machine needs to have.
#include "app/run/capacity.h"

#include <gtest/gtest.h>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "base/scratch.h"
#include "pipeline/model_work.h"

namespace atelier::app {
namespace {

constexpr int64_t kMiB = 1 << 20;

struct Planned {
  Resolved resolved;
  RunSpec spec;
};

Planned planned(Arguments arguments) {
  for (const char* word : {"--model_name", "mini", "--device", "cpu", "--log_dir", "x"})
    arguments.emplace_back(word);
  const Parsed parsed = parse_flags({kT2i, "test", "", {}}, one_spelling(arguments));
  const auto resolved = resolve(kT2i, parsed.flags, {}, parsed.config);
  auto prompts = read_prompts(resolved);
  auto spec =
      make_run_spec(resolved, find_model(resolved, {}, [](const std::string&) {}, {}), std::move(prompts), 0);
  return {resolved, std::move(spec)};
}

std::string refused(Arguments arguments, int64_t host_bytes) {
  auto run = planned(std::move(arguments));
  return message_of(Kind::kCapacity, [&] {
    check_memory(run.spec, run.spec.requests, run.resolved, {.host_bytes = host_bytes});
  });
}

TEST(Capacity, RanksOnTheCpuAreBoundByCoresMemoryAndProcesses) {
  const Room room{.host_bytes = 100000 * kMiB, .cores = 4, .processes = 1000};
  EXPECT_NO_THROW(check_ranks(64, room));
  const auto refusal = [](int ranks, const Room& at) {
    return message_of(Kind::kCapacity, [&] { check_ranks(ranks, at); });
  };
  EXPECT_NE(refusal(65, room).find("4 cores carry at most 64"), std::string::npos);
  EXPECT_NE(refusal(100000, {.cores = 1}).find("100000 ranks"), std::string::npos);
  EXPECT_NE(refusal(20, {.host_bytes = 1440 * kMiB, .cores = 4}).find("free memory carry at most 10"),
            std::string::npos);
  EXPECT_NE(refusal(20, {.cores = 4, .processes = 40}).find("carry at most 10"), std::string::npos);
  EXPECT_NO_THROW(check_ranks(1, {.host_bytes = 1, .processes = 1}));  // said with the weights
}

TEST(Capacity, EveryRankCountsItsWeights) {
  const Arguments one{"--prompt", "x", "--height", "64", "--width", "64"};
  Arguments four = one;
  four.insert(four.end(), {"--num_gpus", "4", "--data_parallel_degree", "4"});
  auto run = planned(one);
  EXPECT_NO_THROW(check_memory(run.spec, run.spec.requests, run.resolved, {.host_bytes = 200 * kMiB}));
  EXPECT_NO_THROW(check_memory(run.spec, run.spec.requests, run.resolved, {}));  // nobody knows
  const auto message = refused(one, 100 * kMiB);
  for (const char* part :
       {"the weights take", "denoiser", "encoders", "VAE", "1 process", "100 MiB of memory are free"})
    EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
  EXPECT_NE(refused(four, 600 * kMiB).find("4 processes"), std::string::npos);
}

TEST(Capacity, ARowThatIsTooLargeFailsAlone) {
  const Scratch dir;
  const auto file =
      dir.write("p.jsonl", "{\"prompt\":\"a\",\"width\":4096,\"height\":4096}\n{\"prompt\":\"b\"}\n");
  const Arguments flags{"--prompts_file", file.string(), "--height", "64", "--width", "64"};
  auto run = planned(flags);
  ASSERT_EQ(run.spec.requests.requests.size(), 2U);
  check_memory(run.spec, run.spec.requests, run.resolved, {.host_bytes = 300 * kMiB});
  ASSERT_EQ(run.spec.requests.requests.size(), 1U);
  EXPECT_EQ(run.spec.requests.requests[0].prompt, "b");
  ASSERT_EQ(run.spec.requests.bad.size(), 1U);
  EXPECT_TRUE(run.spec.requests.bad[0].where.ends_with("p.jsonl:1"));
  // where nothing else is left, the run itself does not fit
  EXPECT_NE(
      refused({"--prompt", "x", "--height", "4096", "--width", "4096"}, 300 * kMiB).find("the pictures take"),
      std::string::npos);
}

TEST(Capacity, ABatchIsNoLargerThanWhatThereIsToDraw) {
  auto run = planned({"--prompt", "x", "--height", "64", "--width", "64", "--batch_size", "100000"});
  EXPECT_NO_THROW(check_memory(run.spec, run.spec.requests, run.resolved, {.host_bytes = 300 * kMiB}));
  Arguments many{"--height", "256", "--width", "256", "--batch_size", "500", "--prompt"};
  for (int i = 0; i < 500; ++i) many.push_back("x");
  const auto message = refused(many, 1000 * kMiB);
  EXPECT_NE(message.find("try --batch_size"), std::string::npos) << message;
}

// A run on GPUs that need not be there.
Planned on_gpus(const Arguments& arguments, Surface surface = kT2i) {
  const Parsed parsed = parse_flags({surface, "test", "", {}}, one_spelling(arguments));
  auto resolved = resolve(surface, parsed.flags, {}, parsed.config);
  RunSpec spec{.model = find_model(resolved, {}, [](const std::string&) {}, {})};
  spec.facts = spec.model.folder.check();
  spec.work = pipeline::model_work(spec.model.folder);
  spec.device.device = c10::Device(c10::kCUDA);
  request::PromptRow row;
  row.request.prompt = row.custom_name = "x";  // the scripts ask for a name
  request::Prompts prompts;
  prompts.rows.push_back(row);
  spec.requests = make_requests(resolved, spec.model.folder, std::move(prompts), ".png");
  EXPECT_FALSE(spec.requests.requests.empty());
  spec.layout.degrees = degrees_of(resolved);
  spec.layout.ranks = plan::world_size(spec.layout.degrees);
  spec.job.engine = engine_config(resolved, spec);
  return {std::move(resolved), std::move(spec)};
}

std::string refused_on(Planned run, int64_t gib) {
  return message_of(Kind::kCapacity, [&] {
    check_memory(run.spec, run.spec.requests, run.resolved, {.device_bytes = gib * 1024 * kMiB});
  });
}

TEST(Capacity, SmallGpusAreToldByRankAndPartWithACommandThatFits) {
  const Arguments flux{"--dummy", "FLUX.1-schnell", "--prompt", "x"};
  auto fits = on_gpus(flux);
  EXPECT_NO_THROW(
      check_memory(fits.spec, fits.spec.requests, fits.resolved, {.device_bytes = 48 * 1024 * kMiB}));
  const auto message = refused_on(on_gpus(flux), 32);
  for (const char* part : {"denoiser 22", "encoders 9", "VAE", "--offload encoders"})
    EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
  EXPECT_NE(refused_on(on_gpus(flux), 16).find("--offload sequential"), std::string::npos);
  Arguments two = flux;
  two.insert(two.end(), {"--strategy", "ulysses=2"});
  const auto ranks = refused_on(on_gpus(two), 24);
  EXPECT_NE(ranks.find("rank 0: denoiser"), std::string::npos) << ranks;
  EXPECT_NE(ranks.find("; rank 1: denoiser"), std::string::npos) << ranks;
  // What is proposed is accepted.
  Arguments offloaded = flux;
  offloaded.insert(offloaded.end(), {"--offload", "encoders"});
  auto accepted = on_gpus(offloaded);
  EXPECT_NO_THROW(check_memory(accepted.spec, accepted.spec.requests, accepted.resolved,
                               {.device_bytes = 32 * 1024 * kMiB}));
}

TEST(Capacity, AfterRunningOutTheCommandOfTheSurfaceIsChanged) {
  const auto advice = [](const Planned& run, int64_t batch) {
    return advice_for_memory(run.spec, run.resolved, run.spec.requests.requests.front(), batch);
  };
  const auto batch = on_gpus(
      {"--dummy", "sdxl", "--prompt", "x", "--batch_size", "4", "--height", "1024", "--width", "1024"});
  EXPECT_TRUE(advice(batch, 4).ends_with("--batch_size 2")) << advice(batch, 4);
  EXPECT_EQ(advice(batch, 4).find("--batch_size 4"), std::string::npos);
  const auto script = on_gpus(
      {"--model", "dummy:sdxl", "--prompts", "x.csv", "--width", "1024", "--height", "1024"}, kScripts);
  const auto text = advice(script, 1);
  EXPECT_TRUE(text.starts_with("atelier sdxl --model dummy:sdxl")) << text;
  EXPECT_NE(text.find("--enable-"), std::string::npos) << text;
  // Where nothing else is left: a smaller picture.
  const auto last =
      on_gpus({"--dummy", "sdxl", "--prompt", "x", "--offload", "sequential", "--enable_vae_tiling"});
  EXPECT_NE(advice(last, 1).find("--width 512 --height 512"), std::string::npos) << advice(last, 1);
}

}  // namespace
}  // namespace atelier::app
