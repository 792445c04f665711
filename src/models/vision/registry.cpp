// The table of image encoders.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/image_encoder.h"

namespace atelier::models {

extern const ImageEncoderFamily kClipVision;  // NOLINT(readability-redundant-declaration): of clip.cpp

const ImageEncoderFamily& find_image_encoder(const Json& config) {
  const Json named = config.is_object() ? config.value("architectures", Json()) : Json();
  std::string known;
  for (const auto c : kClipVision.classes) {
    for (const auto& name : named) {
      if (name == c) return kClipVision;
    }
    known += str(known.empty() ? "" : ", ", c);
  }
  throw Error(Kind::kCheckpoint,
              str("image_encoder/config.json: architectures is ", named.dump(), "; known are ", known));
}

}  // namespace atelier::models
