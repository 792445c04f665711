// What the module that is linked with FFmpeg's libraries offers. It is opened at its first use: nothing else
// of the program needs those libraries.
#pragma once
#include <string>
#include <vector>

#include "media/animation.h"

namespace atelier::media {

struct EncodedVideo {
  std::string bytes, codec;  // "H.264 (libx264)"
};

class FfmpegModule {
 public:
  virtual ~FfmpegModule() = default;
  // An MP4 with the texts as its comment and its description. quality: 1 to 100. encoders: FFmpeg's names;
  // the first that is there and can be opened. Throws std::runtime_error.
  virtual EncodedVideo encode(const Video& video, int quality, const Texts& texts,
                              const std::vector<std::string>& encoders) const = 0;
  // The frames of a video in any container and codec that FFmpeg reads, upright. Only the file itself is
  // opened, whatever it refers to. Throws std::runtime_error for one that is damaged, cut off, or has more
  // pixels than kMaxPixels.
  virtual AnimationFacts read(const std::string& file, const TakeFrame& take) const = 0;
};

// In this order: H.264, AV1, VP9.
inline const std::vector<std::string> kVideoEncoders{"libx264", "libopenh264", "libsvtav1", "libaom-av1",
                                                     "libvpx-vp9"};

// The module's one symbol; null for another kFfmpegModuleVersion, which counts changes of this file.
inline constexpr int kFfmpegModuleVersion = 1;
inline constexpr const char* kFfmpegModuleSymbol = "atelier_ffmpeg_module";
using FfmpegModuleEntry = const FfmpegModule*(int version);

}  // namespace atelier::media
