// What a matrix product takes: activations and weights, dense or in eight bits with a scale per row.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <utility>

namespace atelier::nn {

// x [..., C] in the model's type, or 8-bit rows with one scale each: x = rows * scale.
class Activation {
 public:
  // Dense. Implicit, so that layers take tensors.
  Activation(at::Tensor dense) : type_(dense.scalar_type()), rows_(std::move(dense)) {}  // NOLINT
  // rows [..., C]: float8 or int8; scale [..., 1], float; type: the model's.
  Activation(at::Tensor rows, at::Tensor scale, at::ScalarType type)
      : type_(type), rows_(std::move(rows)), scale_(std::move(scale)) {}

  bool is_dense() const { return !scale_.defined(); }
  at::ScalarType type() const { return type_; }
  const at::Tensor& rows() const { return rows_; }
  const at::Tensor& scale() const { return scale_; }
  // In the model's type.
  operator at::Tensor() const;  // NOLINT: for whoever listens or adds

 private:
  at::ScalarType type_;
  at::Tensor rows_, scale_;
};

// W [out, in]: dense, or 8-bit rows with one scale each. Columns may be cut: the scales belong to whole rows.
class Weight {
 public:
  Weight() = default;
  Weight(at::Tensor dense) : rows_(std::move(dense)) {}  // NOLINT: what the builder reads
  // rows [out, in]: float8 or int8; scale [out, 1], float.
  Weight(at::Tensor rows, at::Tensor scale) : rows_(std::move(rows)), scale_(std::move(scale)) {}

  explicit operator bool() const { return rows_.defined(); }
  bool is_dense() const { return !scale_.defined(); }
  int64_t out() const { return rows_.size(0); }
  int64_t in() const { return rows_.size(1); }
  const at::Tensor& rows() const { return rows_; }
  const at::Tensor& scale() const { return scale_; }
  Weight columns(int64_t begin, int64_t count) const { return {rows_.narrow(1, begin, count), scale_}; }
  Weight outputs(int64_t begin, int64_t count) const {
    return {rows_.narrow(0, begin, count), is_dense() ? scale_ : scale_.narrow(0, begin, count)};
  }

 private:
  at::Tensor rows_, scale_;
};

// The nearest 8-bit numbers (kFloat8_e4m3fn, kFloat8_e5m2 or kChar) once each row's largest magnitude is scaled
// to the largest number of the type. Rows of zeros get scale 1.
Activation quantised(const at::Tensor& x, at::ScalarType type);
Weight quantised_weight(const at::Tensor& w, at::ScalarType type);

// x W^T + bias, [..., out], in the model's type. The segments of x are multiplied with W's columns in order and
// accumulated instead of concatenated; together they fill W. bias [out], may be undefined. Products with 8-bit
// numbers are computed from their values in float.
at::Tensor product(std::span<const Activation> x, const Weight& w, const at::Tensor& bias);

}  // namespace atelier::nn
