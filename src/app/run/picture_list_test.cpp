// The tables of pictures: columns, quoting, what stays of runs before.
#include "app/run/picture_list.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/scratch.h"
#include "request/csv.h"

namespace atelier::app {
namespace {

request::Request picture(const char* name, uint64_t seed, const char* prompt = "a fox") {
  request::Request r{.prompt = prompt, .name = name};
  r.width = 96, r.height = 64, r.num_inference_steps = 30, r.guidance_scale = 7.0, r.seed = seed;
  return r;
}

TEST(PictureList, HasTheColumnsOfTheScriptsAndQuotesCells) {
  const Scratch dir;
  const auto file = dir / "generated.csv";
  PictureList list(file, "data/images", false);
  list.add(picture("p1/0.png", 0, "a \"red\" fox,\ntwo lines"), "");
  list.write();
  EXPECT_EQ(read_file(file),
            "prompt_id,seed,path,prompt,width,height,num_inference_steps,guidance_scale\n"
            "p1,0,data/images/p1/0.png,\"a \"\"red\"\" fox,\ntwo lines\",96,64,30,7.0\n");
  EXPECT_EQ(request::read_csv(read_file(file))[1].cells[3], "a \"red\" fox,\ntwo lines");
}

TEST(PictureList, KeepsLinesOfFilesThatAreStillThereAndTheirGpu) {
  const Scratch dir;
  const auto file = dir / "generated_multi_gpu.csv", pictures = dir / "images";
  PictureList first(file, pictures, true);
  for (const char* name : {"a/0.png", "b/0.png", "c/0.png"}) first.add(picture(name, 0), "3");
  first.write();
  write_file_atomically(pictures / "a/0.png", "x");
  PictureList second(file, pictures, true);
  second.add(picture("b/0.png", 0), "");
  second.add(picture("d/0.png", 0), "1");
  second.write();
  const auto lines = request::read_csv(read_file(file));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].cells[8], "gpu_id");
  const std::pair<const char*, const char*> expected[] = {{"a", "3"}, {"b", "3"}, {"d", "1"}};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(lines[i + 1].cells[0], expected[i].first);
    EXPECT_EQ(lines[i + 1].cells[8], expected[i].second);
  }
}

TEST(PictureList, IsNotWrittenOverAnotherTable) {
  const Scratch dir;
  const auto file = dir.write("generated.csv", "id,score\n1,2\n");
  const auto message = message_of(Kind::kUsage, [&] { PictureList(file, "images", false); });
  EXPECT_NE(message.find("generated.csv"), std::string::npos) << message;
  EXPECT_NE(message.find("--output"), std::string::npos) << message;
}

}  // namespace
}  // namespace atelier::app
