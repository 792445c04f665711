// What a run says of itself before it draws.
#include "app/run/run_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/device_choice.h"
#include "app/run/record.h"
#include "app/run/requests.h"

namespace atelier::app {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Settled {
  Resolved resolved;
  RunSpec spec;
};

Resolved resolved_with(const Arguments& arguments) {
  return resolve(kT2i, parse_flags({kT2i, "test", "", {}}, one_spelling(arguments)).flags, {}, {});
}

Settled settled(Arguments arguments) {
  for (const char* more :
       {"--model_name", "mini", "--device", "cpu", "--prompt", "a", "--num_inference_steps", "4"})
    arguments.emplace_back(more);
  const Resolved resolved = resolved_with(arguments);
  auto model = find_model(resolved, {}, [](const std::string&) {}, {});
  return {resolved, make_run_spec(resolved, std::move(model), read_prompts(resolved), 0)};
}

// The lines of a header that begin with this word, and what belongs to them.
std::string header_line(std::string_view word, Arguments arguments, HeaderOf whose = HeaderOf::kRun) {
  const auto run = settled(std::move(arguments));
  std::string out;
  bool is_ours = false;
  for (const auto& line : header(run.spec, run.resolved, whose)) {
    if (!line.starts_with(' ')) is_ours = line.starts_with(word);
    if (is_ours) out += line + "\n";
  }
  return out;
}

TEST(DeviceChoice, WithoutBfloat16ItIsFloat16) {
  EXPECT_STREQ(usual_type(c10::kCUDA, 75, kT2i), "float16");  // T4
  EXPECT_STREQ(usual_type(c10::kCUDA, 80, kT2i), "bfloat16");
  EXPECT_STREQ(usual_type(c10::kCUDA, 0, kT2i), "bfloat16");
  EXPECT_STREQ(usual_type(c10::kCUDA, 90, kScripts), "float16");
  EXPECT_STREQ(usual_type(c10::kCPU, 0, kT2i), "float32");
}

TEST(Header, TellsOfTheLayoutWhatItsProductDoesNot) {
  const auto cut =
      header_line("layout", {"--ulysses_degree", "2", "--fully_shard_degree", "2", "--use_parallel_vae"});
  EXPECT_THAT(cut, HasSubstr("2 ranks"));
  EXPECT_THAT(cut, HasSubstr("ulysses 2"));
  EXPECT_THAT(cut, HasSubstr("weights of the blocks in 2 shards"));
  EXPECT_THAT(cut, HasSubstr("decoded by all ranks"));
  const auto plain = header_line("layout", {"--ulysses_degree", "2"});
  EXPECT_THAT(plain, Not(HasSubstr("shards")));
}

TEST(Header, TellsWhoDecodes) {
  const auto of = [](Arguments more) {
    Arguments arguments{"--ulysses_degree", "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return header_line("layout", arguments);
  };
  EXPECT_THAT(of({"--height", "512", "--width", "512"}), HasSubstr("decoded by all ranks, each its rows"));
  EXPECT_THAT(of({"--height", "64", "--width", "64"}),
              HasSubstr("decoded by the first rank, too small to share"));
  EXPECT_THAT(of({"--height", "64", "--width", "64", "--use_parallel_vae"}),
              HasSubstr("decoded by all ranks"));
  EXPECT_THAT(of({"--use_parallel_vae", "false"}), HasSubstr("decoded by the first rank\n"));
  EXPECT_THAT(of({"--no_use_parallel_vae"}), HasSubstr("decoded by the first rank\n"));
  EXPECT_THAT(of({"--enable_vae_tiling"}), HasSubstr("decoded by the first rank, in tiles"));
  EXPECT_THAT(of({"--enable_vae_tiling", "--use_parallel_vae"}), HasSubstr("decoded by all ranks"));
  EXPECT_THAT(of({"--data_parallel_degree", "2", "--use_parallel_vae", "false"}),
              HasSubstr("decoded by the first rank of each group"));
  EXPECT_THAT(header_line("layout", {"--data_parallel_degree", "2"}), Not(HasSubstr("decoded")));
}

TEST(Header, SaysWhatARunDrawsAndNotWhatAServerMayBeAsked) {
  EXPECT_THAT(header_line("draw", {}), HasSubstr("4 steps"));
  EXPECT_EQ(header_line("draw", {}, HeaderOf::kServer), "");
  EXPECT_THAT(header_line("layout", {}, HeaderOf::kServer), HasSubstr("1 rank"));
}

TEST(Header, TellsWhichPipelinesAreApproximate) {
  const auto stale =
      header_line("layout", {"--pipefusion_degree", "2", "--num_pipeline_patch", "3", "--warmup_steps", "2"});
  EXPECT_THAT(stale, HasSubstr("2 stages"));
  EXPECT_THAT(stale, HasSubstr("3 patches with stale keys after 2 whole steps: approximate"));
  const auto whole = header_line("layout", {"--pipefusion_degree", "2", "--warmup_steps", "4"});
  EXPECT_THAT(whole, HasSubstr("every step whole: exact"));
  EXPECT_THAT(whole, Not(HasSubstr("approximate")));
  const auto exact = header_line("layout", {"--pipeline_parallel_size", "2"});
  EXPECT_THAT(exact, HasSubstr("2 stages (rank 0 blocks 0-"));
  EXPECT_THAT(exact, HasSubstr("every step whole: exact"));
}

// What is written into files and ledger.
Json record_with(const Arguments& arguments) {
  return settled(arguments).spec.job.sink.record;
}

TEST(Record, SaysWhatChangesThePicture) {
  const Json plain = record_with({});
  struct Case {
    Arguments arguments;
    const char* key;
    Json value;
  };
  const Case cases[] = {
      {{"--pipefusion_degree", "2"}, "pipefusion", "stages 2, patches 2, warmup 1"},
      {{"--pipefusion_degree", "2", "--num_pipeline_patch", "3", "--warmup_steps", "2"},
       "pipefusion",
       "stages 2, patches 3, warmup 2"},
      {{"--enable_vae_tiling"}, "vae_tiling", true},
      {{"--tier", "fast"}, "tier", "fast"},
      {{"--attention_dtype", "fp8_e4m3"}, "attention_dtype", "fp8_e4m3"},
      {{"--deterministic"}, "deterministic", true},
      {{"--torch_dtype", "bfloat16"}, "dtype", "bfloat16"},
      {{"--output_format", "jpg", "--quality", "80"}, "quality", 80},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(record_with(c.arguments).value(c.key, Json()), c.value) << c.key;
    EXPECT_NE(plain.value(c.key, Json()), c.value) << c.key;
  }
}

TEST(Record, SaysWhichRandomWeights) {
  const auto resolved = resolved_with({"--model_name", "dummy:FLUX.1-schnell", "--dummy_seed", "7"});
  const auto model = find_model(resolved, {}, [](const std::string&) {}, {});
  EXPECT_EQ(record_of(resolved, model, {}).value("dummy_seed", 0), 7);
}

TEST(Record, IsTheSameWhereThePictureIs) {
  const Json plain = record_with({});
  for (const Arguments& same : {Arguments{"--ulysses_degree", "2"},
                                {"--ring_degree", "2"},
                                {"--tensor_parallel_degree", "2"},
                                {"--strategy", "pipefusion=2, sync"},
                                {"--fully_shard_degree", "2", "--ulysses_degree", "2"},
                                {"--use_parallel_vae", "--ulysses_degree", "2"},
                                {"--offload", "model"},
                                {"--enable_vae_slicing"}})
    EXPECT_EQ(record_with(same), plain) << same.front() << " " << same.back();
}

}  // namespace
}  // namespace atelier::app
