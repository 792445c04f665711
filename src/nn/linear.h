// Linear layers, whole or cut by features.
#pragma once
#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "kernels/types.h"
#include "nn/product.h"
#include "nn/seams.h"

namespace atelier::nn {

using kernels::GatedGelu;

// Hidden states of MLPs that are made for some tokens at a time, and what that saves: bytes that the largest
// would take, and bytes that it takes.
struct TokenChunks {
  int64_t tokens = 0;  // at a time
  int64_t whole_bytes = 0, held_bytes = 0;
  void note(int64_t all, int64_t bytes_of_token);
};

// y = x W^T + b. A layer with e4m3 weights multiplies e4m3 activations. A layer that closes a feature region
// sums its products over the ranks before the bias.
class Linear {
 public:
  Linear() = default;
  Linear(Weight weight, at::Tensor bias, Reducer* sum)
      : weight_(std::move(weight)), bias_(std::move(bias)), sum_(sum) {}

  // [..., in held] -> [..., out held]
  at::Tensor operator()(const Activation& x) const { return run(std::span(&x, 1)); }
  // The input's segments one by one, accumulated instead of concatenated.
  at::Tensor operator()(std::initializer_list<Activation> segments) const {
    return run(std::span(segments.begin(), segments.size()));
  }
  // The same with results of gelu() that are written for some tokens at a time, by the layer that takes them.
  Linear by_chunks(std::shared_ptr<TokenChunks> chunks) const;
  // gelu_tanh of the above, in the product's epilogue where the library has one; of e4m3 weights not written
  // yet, so that a product in e4m3 can follow.
  Activation gelu(const Activation& x) const;
  // The output in equal parts: views of one product on CUDA, a product each on the CPU.
  std::vector<at::Tensor> parts(const Activation& x, int64_t count) const;
  // The output's two halves, one of them through GELU, multiplied.
  at::Tensor gated_gelu(const Activation& x, GatedGelu form) const;
  // y += the output; no bias.
  void add_to_(const at::Tensor& y, const Activation& x) const;
  explicit operator bool() const { return static_cast<bool>(weight_); }

 private:
  at::Tensor run(std::span<const Activation> segments) const;
  at::Tensor run_by_chunks(std::span<const Activation> segments, int64_t tokens) const;
  at::Tensor run_as_given(std::span<const Activation> segments) const;
  // As a product with these weights takes them.
  Activation operand(const Activation& x) const { return weight_.is_e4m3() ? e4m3_of(std::span(&x, 1)) : x; }

  Weight weight_;    // [out held, in held]
  at::Tensor bias_;  // [out held], may be undefined
  Reducer* sum_ = nullptr;
  std::shared_ptr<TokenChunks> chunks_;  // null: whole
};

// Named by what they compute: the tanh form of GELU.
inline Activation gelu_tanh(const Linear& up, const Activation& x) {
  return up.gelu(x);
}

}  // namespace atelier::nn
