// Classifier-free guidance and its rescaling.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

namespace atelier::nn {
class Reducer;
}

namespace atelier::sampling {

struct Guidance {
  double scale = 1;    // 1: the conditional prediction
  double rescale = 0;  // share of the rescaled prediction in the result, in [0, 1]
};

// negative + scale * (positive - negative): Ho and Salimans (arXiv 2207.12598). branches: predictions [n, B,
// C], conditional, then unconditional; one alone is its own result.
//
// rescale: the guided prediction of each image gets the standard deviation of its conditional one, over
// all tokens and channels, and is mixed with what it was: Lin et al. (arXiv 2305.08891), equations 15 and
// 16; diffusers rescale_noise_cfg. positions sums over the ranks that hold the other tokens; null: all of
// them are here.
at::Tensor guide(const Guidance& guidance, std::span<const at::Tensor> branches, nn::Reducer* positions);

}  // namespace atelier::sampling
