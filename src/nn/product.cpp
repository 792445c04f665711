#include "nn/product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include "base/check.h"

namespace atelier::nn {
namespace {

double largest(at::ScalarType type) {
  switch (type) {
    case at::kFloat8_e4m3fn:
      return 448;
    case at::kFloat8_e5m2:
      return 57344;
    default:
      ENSURE(type == at::kChar);
      return 127;
  }
}

// {rows, scale [..., 1]}
std::pair<at::Tensor, at::Tensor> quantise(const at::Tensor& x, at::ScalarType type) {
  const auto wide = x.to(at::kFloat);
  const auto most = wide.abs().amax(-1, /*keepdim=*/true);
  const auto scale = at::where(most > 0, most / largest(type), at::Scalar(1.0F));
  const auto scaled = wide / scale;
  return {(type == at::kChar ? scaled.round() : scaled).to(type), scale};
}

at::Tensor values(const at::Tensor& rows, const at::Tensor& scale, at::ScalarType type) {
  return scale.defined() ? rows.to(type) * scale.to(type) : rows.to(type);
}

std::vector<int64_t> with_last(at::IntArrayRef sizes, int64_t last) {
  auto out = sizes.vec();
  out.back() = last;
  return out;
}

// x: segments of W's columns, all in one type -> [rows, out].
at::Tensor accumulated(std::span<const at::Tensor> x, const at::Tensor& w, const at::Tensor& bias) {
  at::Tensor y;
  int64_t column = 0;
  for (const auto& segment : x) {
    const int64_t in = segment.size(-1);
    const auto part = w.narrow(1, column, in).t();
    const auto rows = segment.reshape({-1, in});
    if (y.defined()) {
      y.addmm_(rows, part);
    } else {
      y = bias.defined() ? at::addmm(bias, rows, part) : at::mm(rows, part);
    }
    column += in;
  }
  return y;
}

}  // namespace

Activation::operator at::Tensor() const {
  return is_dense() ? rows_ : values(rows_, scale_, at::kFloat).to(type_);
}

Activation quantised(const at::Tensor& x, at::ScalarType type) {
  auto [rows, scale] = quantise(x, type);
  return {std::move(rows), std::move(scale), x.scalar_type()};
}

Weight quantised_weight(const at::Tensor& w, at::ScalarType type) {
  auto [rows, scale] = quantise(w, type);
  return {std::move(rows), std::move(scale)};
}

at::Tensor product(std::span<const Activation> x, const Weight& w, const at::Tensor& bias) {
  int64_t in = 0;
  bool is_dense = w.is_dense();
  for (const auto& segment : x) {
    in += segment.rows().size(-1);
    is_dense = is_dense && segment.is_dense();
  }
  ENSURE(in == w.in());
  const auto& first = x.front();
  if (is_dense && x.size() == 1) {
    return bias.defined() ? at::linear(first.rows(), w.rows(), bias) : at::linear(first.rows(), w.rows());
  }
  const auto wide = first.type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> segments;
  for (const auto& s : x) segments.push_back(is_dense ? s.rows() : values(s.rows(), s.scale(), wide));
  const auto y = is_dense ? accumulated(segments, w.rows(), bias)
                          : accumulated(segments, values(w.rows(), w.scale(), wide),
                                        bias.defined() ? bias.to(wide) : bias)
                                .to(first.type());
  return y.view(with_last(first.rows().sizes(), w.out()));
}

}  // namespace atelier::nn
