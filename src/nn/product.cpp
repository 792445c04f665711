#include "nn/product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_mm.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include "base/check.h"
#include "nn/tuned_product.h"

namespace atelier::nn {
namespace {

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
    const auto part = w.narrow(1, column, in);
    const auto rows = segment.reshape({-1, in});
    if (y.defined()) {
      if (!add_tuned_product_(y, rows, part)) y.addmm_(rows, part.t());
    } else {
      y = bias.defined() ? at::addmm(bias, rows, part.t()) : at::mm(rows, part.t());
    }
    column += in;
  }
  return y;
}

// What the library's product of e4m3 rows takes.
bool has_e4m3_product(const Activation& x, const Weight& w) {
  const bool is_half = x.type() == at::kBFloat16 || x.type() == at::kHalf;
  return x.is_cuda() && is_half && w.is_e4m3() && !x.is_dense() &&
         x.rows().scalar_type() == at::kFloat8_e4m3fn && w.in() % 16 == 0 && w.out() % 16 == 0 && w.in() > 0;
}

at::Tensor e4m3_product(const Activation& x, const Weight& w, const at::Tensor& bias) {
  const auto y = at::_scaled_mm(x.rows().reshape({-1, w.in()}), w.rows().t(), x.scale().reshape({-1, 1}),
                                w.scale().t(), bias.defined() ? std::optional(bias) : std::nullopt,
                                std::nullopt, x.type(), /*use_fast_accum=*/true);
  return y.view(with_last(x.sizes(), w.out()));
}

}  // namespace

Activation::Activation(std::unique_ptr<const Producer> source)
    : type_(source->like().scalar_type()), unwritten_(std::make_shared<Unwritten>()) {
  unwritten_->from = std::move(source);
}

const at::Tensor& Activation::rows() const {
  if (!unwritten_) return rows_;
  if (!unwritten_->dense.defined()) unwritten_->dense = unwritten_->from->dense();
  return unwritten_->dense;
}

Activation Activation::Producer::tokens(int64_t begin, int64_t count) const {
  return dense().narrow(0, begin, count);
}

Activation Activation::tokens(int64_t begin, int64_t count) const {
  if (tokens_at_once() > 0) return unwritten_->from->tokens(begin, count);
  if (is_dense()) return rows().narrow(0, begin, count);
  return {rows_.narrow(0, begin, count), scale_.narrow(0, begin, count), type_};
}

Activation::operator at::Tensor() const {
  return is_dense() ? rows() : values(rows_, scale_, at::kFloat).to(type_);
}

at::Tensor product(std::span<const Activation> x, const Weight& w, const at::Tensor& bias) {
  int64_t in = 0;
  bool is_dense = w.is_dense();
  for (const auto& segment : x) {
    in += segment.sizes().back();
    is_dense = is_dense && segment.is_dense();
  }
  ENSURE(in == w.in());
  const auto& first = x.front();
  if (is_dense && x.size() == 1) {
    // Of three dimensions that lie otherwise the library makes a product for each index of the first.
    const auto rows = first.rows().contiguous();
    auto y = tuned_product(rows, w.rows(), bias, bias.defined() ? Epilogue::kBias : Epilogue::kNone);
    if (y.defined()) return y;
    return bias.defined() ? at::linear(rows, w.rows(), bias) : at::linear(rows, w.rows());
  }
  if (x.size() == 1 && has_e4m3_product(first, w)) return e4m3_product(first, w, bias);
  const auto wide = first.type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> segments;
  for (const auto& s : x) segments.push_back(is_dense ? s.rows() : values(s.rows(), s.scale(), wide));
  const auto y = is_dense ? accumulated(segments, w.rows(), bias)
                          : accumulated(segments, values(w.rows(), w.scale(), wide),
                                        bias.defined() ? bias.to(wide) : bias)
                                .to(first.type());
  return y.view(with_last(first.sizes(), w.out()));
}

}  // namespace atelier::nn
