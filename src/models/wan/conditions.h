// What Wan's models are shown besides their text, as latents.
#pragma once
#include "models/family.h"

namespace atelier::models {

// First and last frames behind the noisy latents, or in their place (2.2 5B); a control video behind them,
// for models that a control LoRA steers. Upstream: diffusers pipeline_wan_i2v.py prepare_latents.
GivenLatents given_to_wan(const Json& pipeline, const Json& denoiser, const Grid& grid,
                          const ShownPictures& shown, const EncodeVideo& encode);

// A control video with its mask, and reference pictures in front of it, for VACE's control stream. Upstream:
// diffusers pipeline_wan_vace.py prepare_video_latents, prepare_masks.
GivenLatents given_to_vace(const Json& pipeline, const Json& denoiser, const Grid& grid,
                           const ShownPictures& shown, const EncodeVideo& encode);

}  // namespace atelier::models
