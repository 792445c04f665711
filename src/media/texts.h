// Metadata as the two texts that every format stores, and back.
#pragma once
#include "media/codecs.h"
#include "media/image.h"

namespace atelier::media {

Texts texts_of(const Metadata& metadata, Format format);
Metadata metadata_of(const Texts& texts);
int usual_quality(int quality);  // 1 to 100

}  // namespace atelier::media
