// Commands as advice ends in them.
#include "app/settings/command_text.h"

#include <gtest/gtest.h>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

Resolved given(Surface surface, const Arguments& arguments) {
  return resolve(surface, parse_flags({surface, "test", "", {}}, one_spelling(arguments)).flags, {}, {});
}

TEST(CommandText, KeepsWhatWasTypedAndReplacesWhatChanges) {
  const auto resolved = given(kT2i, {"--model_name", "mini", "--prompt", "it's a fox", "true", "--batch_size",
                                     "8", "--no_resume", "--enable_vae_slicing"});
  const auto text = command_text(resolved, {{"batch_size", {"4"}}});
  EXPECT_TRUE(text.starts_with("atelier t2i ")) << text;
  EXPECT_TRUE(text.ends_with(" --batch_size 4")) << text;
  EXPECT_EQ(text.find("--batch_size 8"), std::string::npos);
  for (const char* part :
       {"--no_resume", "--enable_vae_slicing", "--model_name mini", "--prompt 'it'\\''s a fox' true"})
    EXPECT_NE(text.find(part), std::string::npos) << part << ": " << text;
}

TEST(CommandText, SpeaksTheSurface) {
  const auto script = given(kScripts, {"--model", "mini", "--prompts", "x.csv"});
  EXPECT_EQ(flags_text(kScripts, {{"enable_cpu_offload", {}}}), "--enable-cpu-offload");
  EXPECT_TRUE(command_text(script, {}).starts_with("atelier sdxl --model mini")) << command_text(script, {});
  const auto video = given(kVideo, {"--model", "mini", "--prompt", "x"});
  EXPECT_TRUE(command_text(video, {}).starts_with("atelier video --model mini")) << command_text(video, {});
  const auto serve = given(kServe, {"--model_name", "mini"});
  EXPECT_TRUE(command_text(serve, {}).starts_with("atelier serve ")) << command_text(serve, {});
  const auto run = given(kRun, {"--model", "mini", "--prompt", "a \"b\"", "--ulysses_degree", "2"});
  EXPECT_EQ(command_text(run, {{"strategy", {"ring=2"}}}, layout_flags()),
            "atelier run --model mini --prompt 'a \"b\"' --strategy ring=2");
}

// Keys that stand for another setting, or for two.
TEST(CommandText, GivesSettingsOfAFileAsFlagsThatExist) {
  const Scratch scratch;
  const auto file = scratch.write("node.json", R"({"pipeline_parallel_size": 2, "use_fp16": true})");
  const auto text = command_text(resolve(kVideo, {}, {}, file), {});
  EXPECT_EQ(text, "atelier video --torch_dtype float16 --pipeline_parallel_size 2");
}

}  // namespace
}  // namespace atelier::app
