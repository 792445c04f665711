// MP4 out. Only for the module.
#pragma once
#include "media/ffmpeg/handles.h"
#include "media/ffmpeg/module.h"

namespace atelier::media::ffmpeg {

EncodedVideo encode(const Video& video, int quality, const Texts& texts,
                    const std::vector<std::string>& encoders);

}  // namespace atelier::media::ffmpeg
