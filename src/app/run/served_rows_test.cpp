// What must be known before anything is drawn: a row that cannot be written, and models whose
// rows come later.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/run_spec.h"
#include "base/scratch.h"
#include "media/video.h"

namespace atelier::app {
namespace {

using ::testing::HasSubstr;

// Of a small model of videos in tests/goldens.
struct Asked {
  Resolved resolved;
  FoundModel model;
  Asked(const char* name, Arguments arguments)
      : resolved(resolve(
            kVideo, parse_flags({kVideo, "test", "", {}}, with(name, std::move(arguments))).flags, {}, {})),
        model(find_model(resolved, {}, [](const std::string&) {}, {})) {}

 private:
  static Arguments with(const char* name, Arguments arguments) {
    const auto folder = share_folder({}, program_file()) / "tests" / "goldens" / name / "model";
    for (const std::string& more : {std::string("--model_name"), folder.string(), std::string("--device"),
                                    std::string("cpu"), std::string("--prompt"), std::string("a fox")})
      arguments.push_back(more);
    return one_spelling(arguments);
  }
};

TEST(ServedRows, AnMp4IsRefusedBeforeItIsDrawnWhereNothingCanWriteIt) {
  try {
    media::ffmpeg_module();
    GTEST_SKIP() << "FFmpeg's libraries are here, so an MP4 can be written";
  } catch (const Error&) {
  }
  const Asked asked("wan_experts",
                    {"--num_frames", "9", "--height", "16", "--width", "48", "--max_sequence_length", "16"});
  const auto message = message_of(Kind::kUsage, [&] {
    make_requests(asked.resolved, asked.model.folder, request::one_prompt("a fox"), ".mp4");
  });
  EXPECT_THAT(message, HasSubstr("MP4"));
  EXPECT_THAT(message, HasSubstr("libavcodec"));
}

TEST(ServedRows, AModelThatMustBeShownAPictureStandsReadyWithoutOne) {
  Asked asked("wan_frames", {"--num_frames", "5", "--height", "32", "--width", "16"});
  EXPECT_THAT(
      message_of(
          Kind::kUsage,
          [&] { make_requests(asked.resolved, asked.model.folder, request::one_prompt("a fox"), ".webp"); }),
      HasSubstr("--image FILE"));
  const auto spec = make_run_spec(asked.resolved, std::move(asked.model), request::one_prompt("a fox"), 0,
                                  {.is_probe = true});
  EXPECT_EQ(std::ssize(spec.requests.requests), 1);
}

}  // namespace
}  // namespace atelier::app
