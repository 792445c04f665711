// Latents as small pictures, without the decoder.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "media/image.h"
#include "pipeline/image_stage.h"

namespace atelier::pipeline {

// One colour for each latent, linear in its channels.
class LatentPreview {
 public:
  // Finds the factors: the autoencoder encodes a picture of known colours on this rank, least squares do the
  // rest.
  LatentPreview(const ImageStage& images, const models::VaeFacts& facts);
  // latents [B, C, (f,) h, w] -> pictures of h x w, or videos of f frames.
  std::vector<media::Artifact> draw(const at::Tensor& latents, double fps) const;

 private:
  at::Tensor factors_;  // [C + 1, 3], the last row for a constant
  int64_t temporal_;
};

}  // namespace atelier::pipeline
