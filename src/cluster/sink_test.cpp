// Videos on their way to files, folders and the pool.
#include "cluster/sink.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/testing.h"
#include "cluster/channel.h"
#include "jobs/output_folder.h"
#include "media/video.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;

media::Video video_of(int frames) {
  media::Video video{{}, 8};
  for (int f = 0; f < frames; ++f) {
    media::Image p{16, 12, std::vector<uint8_t>(size_t{3} * 16 * 12)};
    for (size_t i = 0; i < p.rgb.size(); ++i)
      p.rgb[i] = static_cast<uint8_t>(i + 40 * static_cast<size_t>(f));
    video.frames.push_back(std::move(p));
  }
  return video;
}

request::Request named(const std::string& name) {
  request::Request r;
  r.prompt = "a boat sails", r.name = name, r.seed = 3, r.num_frames = 3, r.fps = 8;
  return r;
}

class Sinks : public testing::Test {
 protected:
  SinkConfig config() const {
    SinkConfig out{.folder = folder_.path(), .format = "webp", .quality = 100};
    out.record = {{"model", "toy"}, {"dtype", "float32"}};
    return out;
  }
  TemporaryFolder folder_;
};

TEST_F(Sinks, StoreAVideoAsOneFileWithItsParameters) {
  const auto sink = make_sink(config());
  for (const char* name : {"a.webp", "b/c.gif"}) {
    const auto stored = sink->put(named(name), video_of(3)).record;
    const auto bytes = read_file(folder_.path() / name);
    EXPECT_EQ(stored.bytes, bytes.size());
    EXPECT_EQ(stored.sha256, sha256(bytes));
    const auto metadata = media::read_metadata(bytes);
    ASSERT_TRUE(metadata) << name;
    const auto asked = media::describe(request::look(named(name), config().record));
    EXPECT_EQ(metadata->values, asked.values);
    EXPECT_NE(metadata->parameters.find("Frames: 3"), std::string::npos) << metadata->parameters;
    int64_t frames = 0;
    media::read_clip(folder_.path() / name, 10, [&](const media::Image&) { ++frames; });
    EXPECT_EQ(frames, 3);
  }
}

TEST_F(Sinks, StoreAFolderOfFramesWholeOrNotAtAllAndReplaceIt) {
  const auto sink = make_sink(config());
  for (const int frames : {5, 3}) {
    const auto stored = sink->put(named("a.frames"), video_of(frames)).record;
    const auto found = media::look_at_frames(folder_.path() / "a.frames");
    EXPECT_TRUE(found.is_whole);
    EXPECT_EQ(found.sha256, stored.sha256);
    EXPECT_EQ(found.bytes, stored.bytes);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path() / "a.frames"), {}), frames);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1);  // nothing temporary
}

TEST_F(Sinks, SendAVideoButNoFolder) {
  auto to_pool = config();
  to_pool.returns_bytes = true;
  const auto sink = make_sink(to_pool);
  const auto sent = sink->put(named("a.webp"), video_of(3));
  EXPECT_EQ(sent.record.sha256, sha256(sent.data));
  EXPECT_TRUE(media::is_whole(sent.data));
  try {
    sink->put(named("a.frames"), video_of(3));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kItem);  // its own fault: others can be sent
  }
}

// Process numbers are alike on all hosts.
TEST_F(Sinks, RemoveWhatTheirProcessesLeftAndNotWhatOtherHostsWrite) {
  for (const char* name : {".atelier-other-17-3.tmp", ".atelier-a_17_b-5-0.tmp"})
    std::ofstream(folder_.path() / name) << "half";
  remove_unfinished(config(), {"a/b.png"}, {17});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 2);
  std::ofstream(folder_.path() / jobs::temporary_name()) << "half";
  remove_unfinished(config(), {}, {::getpid() + 1});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 3);
  remove_unfinished(config(), {}, {17, ::getpid()});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 2);
}

TEST_F(Sinks, SendNoMoreThanAMessageHolds) {
  auto to_pool = config();
  to_pool.returns_bytes = true;
  const auto bytes = make_sink(to_pool)->put(named("a.webp"), video_of(3)).data.size();
  EXPECT_EQ(make_sink(to_pool, bytes)->put(named("a.webp"), video_of(3)).data.size(), bytes);
  try {
    make_sink(to_pool, bytes - 1)->put(named("a.webp"), video_of(3));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kItem);
    EXPECT_NE(std::string(e.what()).find("lower quality"), std::string::npos) << e.what();
  }
  EXPECT_LT(kPieceBytes, Channel::kMaxBytes);
  EXPECT_GT(kMostSentBytes, Channel::kMaxBytes);  // lossless videos are as long
}

TEST_F(Sinks, NameTheCodecOfAnMp4) {
  try {
    media::ffmpeg_module();
  } catch (const Error& e) {
    GTEST_SKIP() << "FFmpeg's libraries are not here, so no MP4 was stored";
  }
  const auto stored = make_sink(config())->put(named("a.mp4"), video_of(3)).record;
  EXPECT_FALSE(stored.codec.empty());
  EXPECT_TRUE(media::is_complete(folder_.path() / "a.mp4"));
}

}  // namespace
}  // namespace atelier::cluster
