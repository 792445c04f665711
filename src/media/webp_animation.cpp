// Animated WebP: the container is written and read here, its frames are libwebp's. [RFC 9649 section 2.7]
#include <webp/decode.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "media/animation.h"
#include "media/exif.h"
#include "media/riff.h"

namespace atelier::media {
namespace {

constexpr size_t kFrameHeader = 16;
constexpr int kFrameEffort = 2;  // of libwebp's 0 to 6: a clip has many frames
constexpr char kDoNotBlend = 0x02;

struct FrameHeader {
  int left, top, width, height;
  uint32_t milliseconds;
  bool is_blended, is_cleared;  // over what was there; to nothing when its time is over
};

FrameHeader header_of(std::string_view data, int canvas_width, int canvas_height) {
  if (data.size() < kFrameHeader) damaged("WebP", "a frame has no header");
  const auto number = [&](size_t at) { return static_cast<int>(get_little(data.substr(at), 3)); };
  const FrameHeader h{2 * number(0),
                      2 * number(3),
                      number(6) + 1,
                      number(9) + 1,
                      get_little(data.substr(12), 3),
                      (data[15] & kDoNotBlend) == 0,
                      (data[15] & 1) != 0};
  if (h.left + h.width > canvas_width || h.top + h.height > canvas_height)
    damaged("WebP", "a frame is larger than the animation");
  return h;
}

// [height, width, 4] of one frame.
std::vector<uint8_t> pixels_of(std::string_view coded, const FrameHeader& h) {
  int width = 0, height = 0;
  if (!WebPGetInfo(raw(coded), coded.size(), &width, &height) || width != h.width || height != h.height)
    damaged("WebP", "a frame has another size than it says");
  std::vector<uint8_t> rgba(size_t{4} * static_cast<size_t>(width) * static_cast<size_t>(height));
  if (!WebPDecodeRGBAInto(raw(coded), coded.size(), rgba.data(), rgba.size(), 4 * width))
    damaged("WebP", "a frame's data is not whole");
  return rgba;
}

}  // namespace

std::string encode_webp_animation(const Video& video, int quality, const Texts& texts) {
  const Image& first = video.frames.front();
  const bool has_texts = !texts.parameters.empty() || !texts.json.empty();
  std::string body = "WEBP" + extended_header(static_cast<char>(kAnimationFlag | (has_texts ? kExifFlag : 0)),
                                              first.width, first.height);
  std::string settings;
  put_little(settings, 0xff000000, 4);  // the canvas behind: opaque black
  put_little(settings, 0, 2);           // for ever
  body += riff_chunk("ANIM", settings);
  const auto coded =
      encode_each(video, [&](const Image& frame) { return encode_plain_webp(frame, quality, kFrameEffort); });
  const FrameTimes times(video.fps, 1000);
  for (size_t i = 0; i < coded.size(); ++i) {
    std::string frame;
    put_little(frame, 0, 6);
    put_little(frame, static_cast<uint64_t>(first.width - 1), 3);
    put_little(frame, static_cast<uint64_t>(first.height - 1), 3);
    put_little(frame, std::min<uint64_t>(times.ticks(i), 0xffffff), 3);
    frame.push_back(kDoNotBlend);
    frame += std::string_view(coded[i]).substr(kRiffHeader);
    body += riff_chunk("ANMF", frame);
  }
  if (has_texts) body += riff_chunk("EXIF", write_exif(texts));
  if (body.size() > 0xfffffff0)
    throw Error(Kind::kItem, "the frames do not fit into a WebP, which holds 4 GiB: write .mp4 instead");
  return riff_chunk("RIFF", body);
}

bool is_webp_animation(std::string_view bytes) {
  RiffChunks c(bytes);
  return bytes.starts_with("RIFF") && c.next() && c.type == "VP8X" && c.data.size() >= 10 &&
         (c.data[0] & kAnimationFlag) != 0;
}

AnimationFacts read_webp_animation(std::string_view bytes, const TakeFrame& take) {
  RiffChunks c(bytes);
  if (!c.is_whole) damaged("WebP", "it is shorter than it says");
  if (!c.next() || c.type != "VP8X" || c.data.size() < 10) damaged("WebP", "it has no header");
  AnimationFacts facts;
  facts.width = static_cast<int>(get_little(c.data.substr(4), 3)) + 1;
  facts.height = static_cast<int>(get_little(c.data.substr(7), 3)) + 1;
  check_size(facts.width, facts.height, "WebP");
  Canvas canvas(facts.width, facts.height);
  int64_t milliseconds = 0;
  while (c.next()) {
    if (c.type != "ANMF") continue;
    const auto h = header_of(c.data, facts.width, facts.height);
    // libwebp takes the chunks of a frame as they stand, but for unknown ones in front
    const auto coded = c.data.substr(kFrameHeader);
    canvas.draw(pixels_of(coded, h), h.left, h.top, h.width, h.height, h.is_blended);
    ++facts.frames, milliseconds += h.milliseconds;
    if (!take(canvas.picture())) return facts.at_rate(static_cast<double>(milliseconds) / 1000.0);
    if (h.is_cleared) canvas.clear(h.left, h.top, h.width, h.height);
  }
  if (!c.is_whole || facts.frames == 0) damaged("WebP", "its frames are not whole");
  return facts.at_rate(static_cast<double>(milliseconds) / 1000.0);
}

}  // namespace atelier::media
