// What animated WebP and GIF files have in common.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "media/codecs.h"
#include "media/image.h"

namespace atelier::media {

// Whole numbers of ticks for each frame, which together keep the rate.
class FrameTimes {
 public:
  // fps: at most so many ticks per second; 0: one frame per second.
  FrameTimes(double fps, int ticks_per_second);
  uint64_t ticks(size_t frame) const;

 private:
  double each_;
};

// What `encode` makes of each frame, in their order; several frames at the same time, as they do not depend
// on each other. Rethrows what it throws.
std::vector<std::string> encode_each(const Video& video,
                                     const std::function<std::string(const Image&)>& encode);

struct AnimationFacts {
  int width = 0, height = 0;
  int64_t frames = 0;  // that were read
  double fps = 0;      // of those; 0: the file does not say
  AnimationFacts at_rate(double seconds) const;
};

// Gets one frame after another; false: no more are wanted.
using TakeFrame = std::function<bool(Image)>;

// What frames are drawn on.
class Canvas {
 public:
  Canvas(int width, int height);
  // rgba [height, width, 4]; is_blended: transparent pixels let what was there through.
  void draw(const std::vector<uint8_t>& rgba, int left, int top, int width, int height, bool is_blended);
  void clear(int left, int top, int width, int height);  // to black
  Image picture() const { return picture_; }
  void restore(const Image& picture) { picture_ = picture; }

 private:
  Image picture_;
};

std::string encode_webp_animation(const Video& video, int quality, const Texts& texts);
bool is_webp_animation(std::string_view bytes);
// Throws Error(kUsage) for a file that is damaged or larger than it may be.
AnimationFacts read_webp_animation(std::string_view bytes, const TakeFrame& take);

// GIF: 256 colours for each frame; the texts are comments of the file, parameters first.
std::string encode_gif(const Video& video, const Texts& texts);
AnimationFacts read_gif(std::string_view bytes, const TakeFrame& take);
std::optional<Texts> texts_of_gif(std::string_view bytes);
bool is_complete_gif(std::string_view bytes);

}  // namespace atelier::media
