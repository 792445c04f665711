// Videos in. Only for the module.
#pragma once
#include <string>

#include "media/ffmpeg/handles.h"
#include "media/ffmpeg/module.h"

namespace atelier::media::ffmpeg {

AnimationFacts read(const std::string& file, const TakeFrame& take);

}  // namespace atelier::media::ffmpeg
