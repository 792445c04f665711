// Linear layers, whole or cut by features.
#pragma once
#include <ATen/core/Tensor.h>

#include <initializer_list>

#include "nn/seams.h"

namespace atelier::nn {

// y = x W^T + b. A layer that closes a feature region sums its products over the ranks before the bias.
class Linear {
 public:
  Linear() = default;
  Linear(at::Tensor weight, at::Tensor bias, Reducer* sum) : weight_(weight), bias_(bias), sum_(sum) {}

  at::Tensor operator()(const at::Tensor& x) const;  // [..., in held] -> [..., out held]
  // The input's segments one by one, accumulated instead of concatenated.
  at::Tensor operator()(std::initializer_list<at::Tensor> segments) const;
  // gelu_tanh of the above, in the product's epilogue where the library has one.
  at::Tensor gelu(const at::Tensor& x) const;
  explicit operator bool() const { return weight_.defined(); }

 private:
  at::Tensor close(at::Tensor product) const;
  at::Tensor weight_;  // [out held, in held]
  at::Tensor bias_;    // [out held], may be undefined
  Reducer* sum_ = nullptr;
};

// Named by what they compute: the tanh form of GELU.
inline at::Tensor gelu_tanh(const Linear& up, const at::Tensor& x) {
  return up.gelu(x);
}

}  // namespace atelier::nn
