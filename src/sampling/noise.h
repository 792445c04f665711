// Standard normal numbers from seeds, the same on every device, batch and layout.
#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace atelier::sampling {

// Each image of a batch has a generator of its own, seeded once: what it draws first is the initial noise, what it
// draws later the noise of the steps that want some, as diffusers' pipelines do with one generator per image. Whole
// latents are drawn on the CPU; whoever holds a part of them takes it from the whole.
class NoiseSource {
 public:
  static constexpr int kInitial = -1;
  // size: of the latents of a batch of one, such as [1, C, H, W].
  NoiseSource(std::span<const uint64_t> seeds, at::IntArrayRef size);
  // [B, ...], float. Steps in rising order, kInitial before them; the same step again is the same noise.
  at::Tensor draw(int step);

 private:
  std::vector<at::Generator> generators_;
  std::vector<int64_t> size_;
  int last_ = kInitial - 1;
  at::Tensor drawn_;
};

}  // namespace atelier::sampling
