// Standard normal numbers from seeds, the same on every device, batch and layout.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace atelier::sampling {

// Each image of a batch has a generator of its own, seeded once. It draws in the order of diffusers'
// pipelines with one generator per image: what latents of a picture to begin with are sampled with, the
// initial noise, what those of the masked picture are sampled with, and the noise of the steps that want
// some. Whole latents are drawn on the CPU; whoever holds a part of them takes it from the whole.
class NoiseSource {
 public:
  static constexpr int kPicture = -3, kInitial = -2, kMasked = -1;
  // size: of the latents of a batch of one, such as [1, C, H, W].
  NoiseSource(std::span<const uint64_t> seeds, at::IntArrayRef size);
  // [B, ...], float. In rising order, what a request has no use for left out; the same again is
  // the same noise.
  at::Tensor draw(int step);

 private:
  std::vector<at::Generator> generators_;
  std::vector<int64_t> size_;
  int last_ = kPicture - 1;
  at::Tensor drawn_;
};

}  // namespace atelier::sampling
