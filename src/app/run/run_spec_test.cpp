// What a run says of itself before it draws.
#include "app/run/run_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/requests.h"

namespace atelier::app {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The lines of a header that begin with this word, and what belongs to them.
std::string header_line(std::string_view word, Arguments arguments) {
  for (const char* more :
       {"--model_name", "mini", "--device", "cpu", "--prompt", "a", "--num_inference_steps", "4"})
    arguments.emplace_back(more);
  const Resolved resolved =
      resolve(kT2i, parse_flags({kT2i, "test", "", {}}, one_spelling(arguments)).flags, {}, {});
  auto model = find_model(resolved, {}, [](const std::string&) {}, {});
  const RunSpec spec = make_run_spec(resolved, std::move(model), read_prompts(resolved), 0);
  std::string out;
  bool is_ours = false;
  for (const auto& line : header(spec, resolved)) {
    if (!line.starts_with(' ')) is_ours = line.starts_with(word);
    if (is_ours) out += line + "\n";
  }
  return out;
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
  EXPECT_THAT(plain, Not(HasSubstr("decoded by all ranks")));
}

TEST(Header, TellsWhichPipelinesAreApproximate) {
  const auto stale =
      header_line("layout", {"--pipefusion_degree", "2", "--num_pipeline_patch", "3", "--warmup_steps", "2"});
  EXPECT_THAT(stale, HasSubstr("2 stages"));
  EXPECT_THAT(stale, HasSubstr("3 patches with stale keys after 2 whole steps: approximate"));
  const auto whole = header_line("layout", {"--pipefusion_degree", "2", "--warmup_steps", "4"});
  EXPECT_THAT(whole, HasSubstr("every step whole: exact"));
  EXPECT_THAT(whole, Not(HasSubstr("approximate")));
}

}  // namespace
}  // namespace atelier::app
