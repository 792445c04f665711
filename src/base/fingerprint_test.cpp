// Equal contents, equal letters; and what a large file gives away without being read whole.
#include "base/fingerprint.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/digest.h"
#include "base/error.h"
#include "base/scratch.h"

namespace atelier {
namespace {
namespace fs = std::filesystem;

TEST(Fingerprint, OfASmallFileIsItsContents) {
  const Scratch dir;
  const auto a = dir.write("a", "weights"), b = dir.write("b", "weights"), c = dir.write("c", "weightz");
  fs::last_write_time(b, fs::file_time_type::clock::now() - std::chrono::hours(9));
  EXPECT_EQ(fingerprint(a, Depth::kFast), sha256("weights"));
  EXPECT_EQ(fingerprint(b, Depth::kFast), fingerprint(a, Depth::kFull));
  EXPECT_NE(fingerprint(c, Depth::kFast), fingerprint(a, Depth::kFast));
  EXPECT_EQ(fingerprint(dir.write("empty", ""), Depth::kFast), sha256(""));
  EXPECT_NE(message_of(Kind::kUsage, [&] { fingerprint(dir / "absent", Depth::kFast); }).find("absent"),
            std::string::npos);
}

// A sparse file: no disk space is taken.
fs::path large(const Scratch& dir, const char* name, int64_t at, char byte) {
  fs::path file = dir.write(name, "");
  fs::resize_file(file, kSmallFile + 100000);
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(at);
  out.put(byte);
  return file;
}

TEST(Fingerprint, OfALargeFileSeesHeaderSizeAndTime) {
  const Scratch dir;
  const int64_t middle = kSmallFile / 2;
  const auto a = large(dir, "a", middle, 'x'), b = large(dir, "b", middle, 'y'), c = large(dir, "c", 8, 'x');
  const auto now = fs::last_write_time(a);
  for (const auto& file : {b, c}) fs::last_write_time(file, now);
  EXPECT_EQ(fingerprint(a, Depth::kFast), fingerprint(b, Depth::kFast));  // neither size nor time tells
  EXPECT_NE(fingerprint(a, Depth::kFull), fingerprint(b, Depth::kFull));
  EXPECT_NE(fingerprint(a, Depth::kFast), fingerprint(c, Depth::kFast));
  const auto before = fingerprint(a, Depth::kFast);
  fs::last_write_time(a, now + std::chrono::seconds(1));
  EXPECT_NE(fingerprint(a, Depth::kFast), before);
  fs::last_write_time(a, now);
  fs::resize_file(a, kSmallFile + 100001);
  fs::last_write_time(a, now);
  EXPECT_NE(fingerprint(a, Depth::kFast), before);
}

}  // namespace
}  // namespace atelier
