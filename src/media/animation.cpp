#include "media/animation.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/thread_pool.h"

namespace atelier::media {

FrameTimes::FrameTimes(double fps, int ticks_per_second)
    : each_(ticks_per_second /
            std::clamp(fps > 0 ? fps : 1.0, 0.001, static_cast<double>(ticks_per_second))) {}

uint64_t FrameTimes::ticks(size_t frame) const {
  const auto until = [&](size_t n) {
    return static_cast<uint64_t>(std::llround(each_ * static_cast<double>(n)));
  };
  return until(frame + 1) - until(frame);
}

std::vector<std::string> encode_each(const Video& video,
                                     const std::function<std::string(const Image&)>& encode) {
  std::vector<std::string> coded(video.frames.size());
  ThreadPool(default_workers()).run(std::ssize(coded), [&](int64_t i) {
    coded[static_cast<size_t>(i)] = encode(video.frames[static_cast<size_t>(i)]);
  });
  return coded;
}

AnimationFacts AnimationFacts::at_rate(double seconds) const {
  AnimationFacts out = *this;
  out.fps = seconds > 0 ? static_cast<double>(frames) / seconds : 0;
  return out;
}

Canvas::Canvas(int width, int height) : picture_{width, height, {}} {
  picture_.rgb.resize(size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height));
}

void Canvas::draw(const std::vector<uint8_t>& rgba, int left, int top, int width, int height,
                  bool is_blended) {
  const uint8_t* from = rgba.data();
  for (int y = 0; y < height; ++y) {
    uint8_t* to =
        &picture_.rgb[size_t{3} * (static_cast<size_t>(top + y) * static_cast<size_t>(picture_.width) +
                                   static_cast<size_t>(left))];
    for (int x = 0; x < width; ++x, from += 4, to += 3) {
      const int alpha = is_blended ? from[3] : 255;
      for (int c = 0; c < 3; ++c)
        to[c] = static_cast<uint8_t>((from[c] * alpha + to[c] * (255 - alpha) + 127) / 255);
    }
  }
}

void Canvas::clear(int left, int top, int width, int height) {
  for (int y = top; y < top + height; ++y) {
    const size_t at = size_t{3} * (static_cast<size_t>(y) * static_cast<size_t>(picture_.width) +
                                   static_cast<size_t>(left));
    std::memset(&picture_.rgb[at], 0, size_t{3} * static_cast<size_t>(width));
  }
}

}  // namespace atelier::media
