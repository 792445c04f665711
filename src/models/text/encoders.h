// The text encoders, each in a file of its own.
#pragma once
#include "models/text_encoder.h"

namespace atelier::models {

extern const EncoderFamily kClip, kT5, kBert;

}  // namespace atelier::models
