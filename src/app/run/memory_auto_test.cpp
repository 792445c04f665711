// --memory auto on machines of any size, none of which needs to be there.
#include <gtest/gtest.h>

#include <algorithm>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/capacity.h"
#include "app/run/plan_query.h"

namespace atelier::app {
namespace {

struct Planned {
  Resolved resolved;
  RunSpec spec;
};

Planned planned(const Arguments& more = {}) {
  Arguments arguments{"--prompt",
                      "x",
                      "--height",
                      "256",
                      "--width",
                      "256",
                      "--num_images_per_prompt",
                      "4",
                      "--batch_size",
                      "4",
                      "--model_name",
                      "mini",
                      "--device",
                      "cpu",
                      "--log_dir",
                      "x"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Parsed parsed = parse_flags({kT2i, "test", "", {}}, one_spelling(arguments));
  const auto resolved = resolve(kT2i, parsed.flags, {}, parsed.config);
  auto spec = make_run_spec(resolved, find_model(resolved, {}, [](const std::string&) {}, {}),
                            read_prompts(resolved), 0);
  return {resolved, std::move(spec)};
}

bool says(const Planned& run, std::string_view text) {
  const auto& notes = run.spec.requests.notes;
  return std::any_of(notes.begin(), notes.end(), [&](auto& n) { return n.find(text) != n.npos; });
}

TEST(MemoryAuto, IsToldAndDoesNothingWhereEverythingFits) {
  EXPECT_FALSE(says(planned(), "memory auto"));
  const auto run = planned({"--memory", "auto"});
  EXPECT_TRUE(says(run, "memory auto: everything fits"));
  EXPECT_FALSE(run.spec.job.engine.vae_slicing || run.spec.job.engine.vae_tiling);
}

// With less and less memory each next change is chosen, and what is chosen fits.
TEST(MemoryAuto, TakesTheLeastThatFits) {
  std::vector<std::string> chosen;
  auto run = planned();
  run.spec.device.device = c10::Device(c10::kCUDA, 0);
  const auto asked = run.spec.job.engine;
  for (int64_t bytes = int64_t{512} << 20; bytes > 0; bytes -= int64_t{1} << 18) {
    run.spec.job.engine = asked;
    const Room room{.device_bytes = bytes + kept_by_libraries()};
    const auto note = choose_memory(run.spec, run.resolved, room);
    if (note.find("nothing that") != note.npos) {
      EXPECT_EQ(run.spec.job.engine.offload, asked.offload);
      EXPECT_THROW(check_memory(run.spec, run.spec.requests, run.resolved, room), Error);
      chosen.push_back(note);
      break;
    }
    EXPECT_NO_THROW(check_memory(run.spec, run.spec.requests, run.resolved, room)) << note << " " << bytes;
    EXPECT_EQ(run.spec.requests.requests.size(), 4u) << note;
    if (chosen.empty() || chosen.back() != note) chosen.push_back(note);
  }
  ASSERT_GE(chosen.size(), 4u);
  EXPECT_EQ(chosen.front(), "memory auto: everything fits as it is");
  EXPECT_EQ(chosen[1], "memory auto picks --enable_vae_slicing");
  EXPECT_NE(chosen[chosen.size() - 2].find("--offload sequential"), std::string::npos) << chosen.size();
  EXPECT_EQ(chosen.back(), "memory auto: nothing that it may change makes this run fit");
}

TEST(MemoryAuto, KeepsWhatWasAskedFor) {
  auto run = planned({"--enable_vae_tiling"});
  run.spec.device.device = c10::Device(c10::kCUDA, 0);
  run.spec.job.engine.offload = "sequential";
  const auto note = choose_memory(run.spec, run.resolved, {.device_bytes = int64_t{1} << 40});
  EXPECT_NE(note.find("fits as it is"), std::string::npos) << note;
  EXPECT_EQ(run.spec.job.engine.offload, "sequential");
  EXPECT_NE(choose_memory(run.spec, run.resolved, {}).find("cannot be read"), std::string::npos);
}

}  // namespace
}  // namespace atelier::app
