// Which layout a run takes, who decided, and what is refused before anything loads.
#include "app/run/layout_choice.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "base/error.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

const plan::LayoutQuery kQuery{
    {.name = "small", .heads = 12, .blocks = 8},
    {.image_tokens = 256, .text_tokens = 32, .branches = 2, .steps = 12, .batch = 1}};

LayoutChoice chosen(const Arguments& arguments, const Environment& variables = {},
                    const Machine& machine = {}, const plan::LayoutQuery& query = kQuery) {
  const Parsed parsed = parse_flags({kRun, "test", "", {}}, one_spelling(arguments));
  const auto resolved = resolve(kRun, parsed.flags, variables, parsed.config);
  return choose_layout(resolved, query, machine);
}
std::string layout(const Arguments& arguments, const Environment& variables = {}) {
  return plan::to_string(chosen(arguments, variables).degrees);
}
std::string refused(const Arguments& arguments, const Environment& variables = {},
                    const Machine& machine = {}, const plan::LayoutQuery& query = kQuery) {
  return message_of(Kind::kUsage, [&] { chosen(arguments, variables, machine, query); });
}
void expect_mentions(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " in: " << text;
}

TEST(LayoutChoice, ACountWithoutDegreesTakesGuidanceThenHeadsAndSaysSo) {
  EXPECT_EQ(layout({"--num_gpus", "4"}), "cfg=2, ulysses=2");
  EXPECT_EQ(layout({"--num_gpus", "3"}), "ulysses=3");
  EXPECT_EQ(chosen({"--num_gpus", "4"}).why, "--num_gpus, layout chosen by rule");
  plan::LayoutQuery one_branch = kQuery;
  one_branch.work.branches = 1;
  EXPECT_EQ(plan::to_string(chosen({"--num_gpus", "4"}, {}, {}, one_branch).degrees), "ulysses=4");
  EXPECT_EQ(plan::to_string(chosen({"--num_gpus", "24"}, {}, {}, one_branch).degrees), "ring=2, ulysses=12");
}

TEST(LayoutChoice, AFlagWinsOverTheEnvironmentAndThatOverAFile) {
  const Scratch scratch;
  const auto file =
      scratch.write("run.yaml", "ulysses_degree: 2\nring_degree: 2\ntensor_parallel_degree: 2\n");
  const Environment variables{{"DG_XDIT_ULYSSES_DEGREE", "3"}, {"DG_XDIT_RING_DEGREE", "3"}};
  EXPECT_EQ(layout({"--config", file.string(), "--ulysses_degree", "4"}, variables),
            "ring=3, ulysses=4, tensor=2");
}

TEST(LayoutChoice, KeysAreGatheredByFlagFileVariableAndStrategy) {
  const Scratch scratch;
  const auto file = scratch.write("run.yaml", "ulysses_degree: 2\nkv-gather-degree: 2\n");
  EXPECT_EQ(layout({"--kv_gather_degree", "13"}), "kv_gather=13") << "more than the heads";
  EXPECT_EQ(layout({"--config", file.string()}), "kv_gather=2, ulysses=2");
  EXPECT_EQ(layout({}, {{"DG_XDIT_KV_GATHER_DEGREE", "3"}}), "kv_gather=3");
  EXPECT_EQ(layout({"--strategy", "cfg=2, kv_gather=2", "--ulysses_degree", "2"}),
            "cfg=2, kv_gather=2, ulysses=2");
  expect_mentions(refused({"--kv_gather_degree", "999"}), {"kv_gather 999", "tokens"});
}

TEST(LayoutChoice, AStrategyWinsAsAWholeOverLowerLevelsAndNamesWhatItDrops) {
  const Environment variables{{"DG_XDIT_RING_DEGREE", "3"}, {"DG_XDIT_USE_CFG_PARALLEL", "true"}};
  const auto choice = chosen({"--strategy", "ulysses=2"}, variables);
  EXPECT_EQ(plan::to_string(choice.degrees), "ulysses=2");
  EXPECT_EQ(choice.why, "--strategy");
  ASSERT_EQ(choice.remarks.size(), 1u);
  expect_mentions(choice.remarks[0], {"--strategy", "DG_XDIT_RING_DEGREE", "DG_XDIT_USE_CFG_PARALLEL"});
}

TEST(LayoutChoice, AStrategyAndAFlagAddUpUnlessTheyDisagree) {
  EXPECT_EQ(layout({"--strategy", "cfg=2", "--ulysses_degree", "3"}), "cfg=2, ulysses=3");
  EXPECT_EQ(layout({"--strategy", "ulysses=3", "--ulysses_degree", "3"}), "ulysses=3");
  expect_mentions(refused({"--strategy", "ulysses=2", "--ulysses_degree", "3"}),
                  {"--strategy \"ulysses=2\"", "--ulysses_degree", "keep one"});
  expect_mentions(refused({"--strategy", "ulyses=2"}), {"--strategy", "unknown word \"ulyses\"", "ulysses"});
}

TEST(LayoutChoice, PicturesAreSharedBySizeUntilSomebodySaysOtherwise) {
  using plan::PictureRows;
  const auto of = [](const Arguments& arguments, const Environment& variables = {}) {
    return chosen(arguments, variables).degrees.parallel_vae;
  };
  EXPECT_EQ(of({"--ulysses_degree", "2"}), PictureRows::kBySize);
  EXPECT_EQ(of({"--num_gpus", "4"}), PictureRows::kBySize);
  EXPECT_EQ(of({"--ulysses_degree", "2", "--use_parallel_vae"}), PictureRows::kAlways);
  EXPECT_EQ(of({"--ulysses_degree", "2", "--use_parallel_vae", "false"}), PictureRows::kNever);
  EXPECT_EQ(of({"--ulysses_degree", "2"}, {{"DG_XDIT_USE_PARALLEL_VAE", "false"}}), PictureRows::kNever);
  EXPECT_EQ(of({"--strategy", "ulysses=2, parallel_vae=false"}), PictureRows::kNever);
  EXPECT_EQ(layout({"--strategy", "ulysses=2, parallel_vae=no"}), "ulysses=2, parallel_vae=false");
  EXPECT_EQ(layout({"--strategy", "ulysses=2, parallel_vae"}), "ulysses=2, parallel_vae");
  expect_mentions(refused({"--strategy", "ulysses=2, parallel_vae", "--use_parallel_vae", "false"}),
                  {"--use_parallel_vae", "say different things"});
}

TEST(LayoutChoice, RefusesACountThatIsNotTheProduct) {
  expect_mentions(refused({"--num_gpus", "4", "--ulysses_degree", "3"}),
                  {"need 3 ranks", "ulysses 3", "but 4", "layouts of 4 ranks that work: ulysses=4"});
  expect_mentions(refused({"--num_gpus", "two"}), {"--num_gpus", "\"two\"", "at least 1 nor auto"});
  expect_mentions(refused({"--ulysses_degree", "13"}), {"12 heads", "1 rank would", "of 12: ulysses=12"});
  expect_mentions(refused({"--pipefusion_degree", "9"}), {"8 blocks", "of 8: pipefusion=8"});
  Machine launched;
  launched.launched = 4;
  expect_mentions(refused({"--ulysses_degree", "2"}, {}, launched), {"need 2 ranks", "but 4"});
}

TEST(LayoutChoice, RefusesGuidanceInHalvesOfARequestWithOneBranch) {
  plan::LayoutQuery one_branch = kQuery;
  one_branch.work.branches = 1;
  expect_mentions(refused({"--use_cfg_parallel"}, {}, {}, one_branch),
                  {"cfg=2", "one branch per step", "ulysses_degree 2"});
}

TEST(LayoutChoice, RefusesMoreRanksThanGpusAndRanksOnOneNamedDevice) {
  Machine machine;
  machine.device.device = c10::kCUDA;
  machine.devices = 2;
  expect_mentions(refused({"--num_gpus", "4"}, {}, machine),
                  {"asked 4, have 2 GPUs", "cuda:0 to cuda:1", "--device cpu"});
  EXPECT_EQ(plan::to_string(chosen({}, {}, machine).degrees), "cfg=2");
  machine.device.device = c10::Device(c10::kCUDA, 1);
  expect_mentions(refused({"--device", "cuda:1", "--num_gpus", "2"}, {}, machine),
                  {"cuda:1", "2 ranks", "--device cuda"});
}

TEST(LayoutChoice, WarnsWherePipefusionCannotPay) {
  EXPECT_TRUE(chosen({"--strategy", "ulysses=2"}).warnings.empty());
  const auto warnings = chosen({"--pipefusion_degree", "8"}).warnings;
  ASSERT_EQ(warnings.size(), 1u);
  expect_mentions(warnings[0], {"pipefusion=8", "% of the stages' time idle", "PSNR"});
}

}  // namespace
}  // namespace atelier::app
