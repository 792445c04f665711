// Of a masked edit: what stays as it is while the rest is drawn anew.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "base/partition.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// Token-major as the latents, [N, B, c].
struct MaskedPicture {
  at::Tensor latents, noise;  // the picture's, clean, and what it was made noisy with; float
  at::Tensor drawn;           // bool: where it is drawn anew

  // The tokens of these ranges, one after another.
  MaskedPicture held(std::span<const Range> ranges) const;
  // x: what the sampler made of the rows `rows` in step `step`. Where nothing is drawn anew it becomes the
  // picture, as noisy as the next step wants it; clean after the last. As the reference's inpainting
  // pipelines of models without channels for a mask (upstream: diffusers
  // pipeline_stable_diffusion_3_inpaint.py).
  void put_back_(const at::Tensor& x, Range rows, const sampling::Sampler& sampler, int step) const;
};

}  // namespace atelier::pipeline
