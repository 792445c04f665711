// The module over FFmpeg's libavformat, libavcodec and libswscale, versions 59 (FFmpeg 5) and later.
#include "media/ffmpeg/module.h"

#include <cstdlib>

#include "media/ffmpeg/decode.h"
#include "media/ffmpeg/encode.h"

namespace atelier::media {
namespace {

class Module : public FfmpegModule {
 public:
  // What is wrong is told by exceptions.
  Module() {
    av_log_set_level(AV_LOG_QUIET);
    ::setenv("SVT_LOG", "1", 0);  // one of the encoders does not ask FFmpeg what to print
  }
  EncodedVideo encode(const Video& video, int quality, const Texts& texts,
                      const std::vector<std::string>& encoders) const override {
    return ffmpeg::encode(video, quality, texts, encoders);
  }
  AnimationFacts read(const std::string& file, const TakeFrame& take) const override {
    return ffmpeg::read(file, take);
  }
};

}  // namespace
}  // namespace atelier::media

extern "C" __attribute__((visibility("default"))) const atelier::media::FfmpegModule* atelier_ffmpeg_module(
    int version) {
  static const atelier::media::Module module;
  return version == atelier::media::kFfmpegModuleVersion ? &module : nullptr;
}
