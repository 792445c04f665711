#include "pipeline/image_processor.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace atelier::pipeline {
namespace {

media::Image line(int width, int height) {
  return {width, height,
          std::vector<uint8_t>(static_cast<size_t>(width) * static_cast<size_t>(height) * 3, 90)};
}

TEST(ImageProcessor, KeepsTheMiddleOfALongPicture) {
  const ImageProcessor processor(Json::object(), 8);
  EXPECT_EQ(processor(line(500, 2)).sizes(), (std::vector<int64_t>{3, 8, 8}));
  EXPECT_EQ(processor(line(3, 400)).sizes(), (std::vector<int64_t>{3, 8, 8}));
}

// A few kilobytes of a file that would become 150 GB.
TEST(ImageProcessor, RefusesALineBeforeItIsResized) {
  const ImageProcessor processor(Json::object(), 224);
  for (const auto& picture : {line(1'000'000, 1), line(1, 1'000'000), line(30'000'000, 1)}) {
    try {
      processor(picture);
      FAIL() << picture.width << "x" << picture.height << " was resized";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
      EXPECT_NE(std::string(e.what()).find("cut the picture first"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace atelier::pipeline
