// Whether the parts of a model fit each other, told from their configs before anything is loaded.
#pragma once
#include <span>
#include <string>

#include "pipeline/component.h"

namespace atelier::pipeline {

// A line for each pair of parts that do not: latent channels of denoiser and autoencoder, widths that the
// denoiser takes from the text encoders. Both sides are named. Empty: they fit, as far as the families say.
std::string misfits(const models::Family& family, std::span<const Component> components);

}  // namespace atelier::pipeline
