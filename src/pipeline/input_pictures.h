// The first stage of a request that begins with a picture: from files to what the autoencoder takes.
#pragma once
#include <ATen/core/Tensor.h>

#include "models/family.h"
#include "request/request.h"

namespace atelier::pipeline {

// Of a batch, on the CPU, in bytes.
struct InputPictures {
  at::Tensor pixels;  // [B, H, W, 3], in the size that is drawn
  at::Tensor drawn;   // [B, h, w], of the latents: 1 where the picture is drawn anew; undefined: everywhere
};

// Reads each file once; pictures and masks are resized as diffusers' VaeImageProcessor does, masks become
// black and white in the size of the picture, and every spatial-th of their pixels counts (nearest
// neighbour). spatial: pixels per latent row. Throws Error(kUsage) naming the file that cannot be used, or
// that no longer holds what its request says.
InputPictures read_inputs(request::Requests batch, const models::Grid& grid, int64_t spatial);

}  // namespace atelier::pipeline
