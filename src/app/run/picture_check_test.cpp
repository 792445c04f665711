// What is wrong with the pictures of requests, before anything loads.
#include "app/run/picture_check.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/scratch.h"
#include "media/image.h"

namespace atelier::app {
namespace {

std::string png(int width, int height) {
  const media::Image p{width, height, std::vector<uint8_t>(static_cast<size_t>(3 * width * height), 99)};
  return media::encode(p, media::Format::kPng);
}

request::Request begun_with(const std::filesystem::path& image) {
  request::Request r;
  r.height = 64, r.width = 96, r.num_inference_steps = 10;
  r.image = image.string();
  return r;
}

const models::Family& flux() {
  return *models::find_family("FluxPipeline");
}

TEST(PictureCheck, FindsOutWhatTheFilesHold) {
  const Scratch dir;
  PictureCheck check(flux());
  auto r = begun_with(dir.write("a.png", png(9, 6)));
  r.mask = dir.write("m.png", png(5, 5)).string();
  EXPECT_EQ(check.problem(r), "");
  EXPECT_EQ(r.strength, 0.6);
  EXPECT_EQ(r.image_sha256, sha256(png(9, 6)));
  EXPECT_EQ(r.mask_sha256, sha256(png(5, 5)));
  EXPECT_TRUE(check.notes().empty());
  EXPECT_EQ(steps_of(r, flux()), 6);
  request::Request plain;
  plain.num_inference_steps = 10;
  EXPECT_EQ(check.problem(plain), "");
  EXPECT_EQ(steps_of(plain, flux()), 10);
}

TEST(PictureCheck, SaysOnceThatAPictureChangesItsShape) {
  const Scratch dir;
  PictureCheck check(flux());
  const auto file = dir.write("a.png", png(8, 8));
  for (int i = 0; i < 3; ++i) {
    auto r = begun_with(file);
    EXPECT_EQ(check.problem(r), "");
  }
  ASSERT_EQ(check.notes().size(), 1u);
  EXPECT_NE(check.notes()[0].find("is 8x8 and becomes 96x64"), std::string::npos) << check.notes()[0];
}

TEST(PictureCheck, NamesTheFileThatCannotBeUsed) {
  const Scratch dir;
  PictureCheck check(flux());
  const auto wrong = [&](const std::string& file, const std::string& mask = "") {
    auto r = begun_with(file);
    if (!mask.empty()) r.mask = mask;
    return check.problem(r);
  };
  const auto good = dir.write("good.png", png(4, 4)).string();
  const auto says = [](const std::string& all, const std::string& words) {
    EXPECT_NE(all.find(words), std::string::npos) << all;
  };
  says(wrong((dir / "none.png").string()), "there is no picture");
  says(wrong(dir.write("text.png", "x").string()), "text.png: this is not a picture");
  says(wrong(dir.write("cut.png", png(40, 40).substr(0, 60)).string()), "cut.png: ");
  says(wrong(good, (dir / "mask.png").string()), "mask.png");
  std::string bomb = png(4, 4);  // its header says 2 GPixel
  bomb.replace(16, 8, std::string("\0\0\xB5\x04\0\0\xB5\x04", 8));
  says(wrong(dir.write("bomb.png", bomb).string()), "bomb.png: ");
}

// A folder of so many frames.
std::string frames_in(const Scratch& dir, const std::string& name, int frames) {
  std::filesystem::create_directories(dir / name);
  for (int i = 0; i < frames; ++i) dir.write(str(name, "/", 100 + i, ".png"), png(6, 4));
  return (dir / name).string();
}

TEST(PictureCheck, SaysWhichFramesOfVideosCount) {
  const Scratch dir;
  const auto& vace = *models::find_family("WanVACEPipeline");
  request::Request of_five;
  of_five.height = 4, of_five.width = 6, of_five.num_frames = 5;
  struct Case {
    int control, mask;
    const char *problem, *note;
  };
  for (const auto& c : {Case{5, 0, "", ""},
                        {9, 0, "", "control_9 has more frames than are drawn: its first 5 are used"},
                        {4, 0, "control_4 has 4 frames; 5 are drawn", ""},
                        {5, 5, "", ""},
                        {9, 9, "", "mask_9 has more frames than are drawn: its first 5 are used"},
                        {5, 1, "", "mask_1 has one frame, which is the mask of all 5"},
                        {5, 4, "mask_4 has 4 frames; 5 are drawn", ""},
                        {5, 9, "mask_9 has more than 5 frames and ", ""},
                        {9, 5, "mask_5 has 5 frames and ", ""}}) {
    PictureCheck check(vace);
    auto r = of_five;
    r.control_video = frames_in(dir, str("control_", c.control), c.control);
    if (c.mask > 0) r.mask_video = frames_in(dir, str("mask_", c.mask), c.mask);
    const auto problem = check.problem(r);
    std::string notes;
    for (const auto& note : check.notes()) notes += note + "\n";
    SCOPED_TRACE(str(c.control, " ", c.mask, ": ", problem, "\n", notes));
    EXPECT_EQ(problem.empty(), *c.problem == 0);
    EXPECT_NE(problem.find(c.problem), std::string::npos);
    EXPECT_NE(notes.find(c.note), std::string::npos);
    if (*c.note == 0 && *c.problem == 0) EXPECT_EQ(notes, "");
    if (*c.problem == 0) EXPECT_EQ(r.mask_video_sha256.has_value(), c.mask > 0);
  }
}

TEST(PictureCheck, SaysThatAPictureIsTheFirstOfSeveral) {
  const Scratch dir;
  PictureCheck check(*models::find_family("WanImageToVideoPipeline"));
  request::Request r;
  r.height = 4, r.width = 6, r.num_frames = 5, r.image = frames_in(dir, "clip", 3);
  EXPECT_EQ(check.problem(r), "");
  ASSERT_EQ(check.notes().size(), 1u);
  EXPECT_NE(check.notes()[0].find("more than one frame: its first is the first frame"), std::string::npos);
}

TEST(PictureCheck, AStrengthMustLeaveSteps) {
  const Scratch dir;
  PictureCheck check(flux());
  auto r = begun_with(dir.write("a.png", png(4, 4)));
  r.strength = 0;
  EXPECT_NE(check.problem(r).find("strength 0 of 10 steps"), std::string::npos);
  request::Request alone;
  alone.mask = "m.png", alone.num_inference_steps = 1;
  EXPECT_NE(check.problem(alone).find("mask"), std::string::npos);
}

}  // namespace
}  // namespace atelier::app
