// What `atelier layouts` takes, what it refuses, and that it shows warnings.
#include <gtest/gtest.h>

#include <cstdlib>

#include "app/cli/cli.h"
#include "app/cli/commands.h"
#include "base/error.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

struct Said {
  std::string out, err;
  bool has(const std::string& text) const {
    return out.find(text) != std::string::npos || err.find(text) != std::string::npos;
  }
};

Said layouts(Arguments arguments) {
  arguments.insert(arguments.begin(), {"--model_name", "models/mini"});
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Said said;
  try {
    layouts_command(one_spelling(arguments));
  } catch (const Error& e) {
    said.err = str(exit_code(e.kind()), ": ", e.what());
  }
  said.out = ::testing::internal::GetCapturedStdout();
  said.err += ::testing::internal::GetCapturedStderr();
  return said;
}

TEST(LayoutsCommand, ListsTheLayoutsOfARequest) {
  const auto plain = layouts({"--num_gpus", "2"});
  EXPECT_TRUE(plain.has("ulysses=2") && plain.has("(taken when only --num_gpus is given)")) << plain.out;
  const auto guided = layouts({"--num_gpus", "2", "--negative_prompt", "b", "--prompt", "a",
                               "--true_cfg_scale", "3", "--width", "128"});
  EXPECT_TRUE(guided.has("128x256") && guided.has("cfg=2") && guided.has("2 branches")) << guided.out;
}

TEST(LayoutsCommand, TakesModelsOfVideos) {
  const auto said = layouts({"--model_name", "tests/goldens/wan_experts/model", "--num_gpus", "2", "--height",
                             "32", "--width", "32", "--num_frames", "5"});
  EXPECT_TRUE(said.has("ulysses=2")) << said.out << said.err;
}

TEST(LayoutsCommand, RefusesByNameWhatItHasNoUseFor) {
  for (const char* flag :
       {"--ulysses_degree", "--seed", "--output_dir", "--strategy", "--torch_dtype", "--timeout"}) {
    const auto said = layouts({"--num_gpus", "2", flag, "2"});
    EXPECT_TRUE(said.has(str("2: ", flag, " has no use in layouts"))) << flag << ": " << said.err;
  }
  EXPECT_TRUE(layouts({}).has("--num_gpus N"));
}

TEST(LayoutsCommand, ShowsWarningsNotesAndBadRows) {
  ::setenv("DG_XDIT_TYPO", "1", 1);
  const auto typo = layouts({"--num_gpus", "2"});
  ::unsetenv("DG_XDIT_TYPO");
  EXPECT_TRUE(typo.has("DG_XDIT_TYPO")) << typo.err;
  const Scratch scratch;
  const auto rows = scratch.write("rows.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"a\", \"width\": 7}\n");
  const auto bad = layouts({"--num_gpus", "2", "--prompts_file", rows.string()});
  EXPECT_TRUE(bad.has("rows.jsonl") && bad.has("width and height")) << bad.err;
}

}  // namespace
}  // namespace atelier::app
