// The autoencoders, each in a file of its own.
#pragma once
#include "models/vae.h"

namespace atelier::models {

extern const VaeFamily kAutoencoderKl, kAutoencoderKlWan;

}  // namespace atelier::models
