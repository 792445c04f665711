#include "nn/linear.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_addmm_activation.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>

#include <algorithm>
#include <stdexcept>

#include "base/check.h"
#include "kernels/kernels.h"
#include "nn/launch_target.h"
#include "nn/tuned_product.h"

namespace atelier::nn {

at::Tensor Reducer::sum_of_product(std::span<const Activation> x, const Weight& w) {
  auto y = product(x, w, {});
  sum(y);
  return y;
}

void TokenChunks::note(int64_t all, int64_t bytes_of_token) {
  if (all * bytes_of_token <= whole_bytes) return;
  whole_bytes = all * bytes_of_token, held_bytes = tokens * bytes_of_token;
}

Linear Linear::by_chunks(std::shared_ptr<TokenChunks> chunks) const {
  Linear out = *this;
  out.chunks_ = std::move(chunks);
  return out;
}

at::Tensor Linear::run_by_chunks(std::span<const Activation> given, int64_t tokens) const {
  const int64_t all = given.front().sizes().front();
  at::Tensor y;
  std::vector<Activation> part;
  for (int64_t begin = 0; begin < all; begin += tokens) {
    const int64_t count = std::min(tokens, all - begin);
    part.clear();
    for (const auto& segment : given) part.push_back(segment.tokens(begin, count));
    const auto made = run(part);
    if (!y.defined()) {
      auto sizes = made.sizes().vec();
      sizes.front() = all;
      y = at::empty(sizes, made.options());
    }
    y.narrow(0, begin, count).copy_(made);
  }
  return y;
}

at::Tensor Linear::run(std::span<const Activation> given) const {
  for (const auto& segment : given) {
    if (segment.tokens_at_once() > 0) return run_by_chunks(given, segment.tokens_at_once());
  }
  if (weight_.is_e4m3()) {
    const auto one = e4m3_of(given);
    return run_as_given(std::span(&one, 1));
  }
  return run_as_given(given);
}

at::Tensor Linear::run_as_given(std::span<const Activation> segments) const {
  if (!sum_) return product(segments, weight_, bias_);
  auto y = sum_->sum_of_product(segments, weight_);
  return bias_.defined() ? y.add_(bias_) : y;
}

namespace {

// gelu_tanh of a product.
class Gelu : public Activation::Producer {
 public:
  explicit Gelu(at::Tensor x) : x_(std::move(x)) {}
  const at::Tensor& like() const override { return x_; }
  at::Tensor dense() const override { return at::gelu(x_, "tanh"); }
  Activation e4m3() const override {
    throw std::logic_error("segments of e4m3_of apply their gelu themselves");
  }
  bool is_gelu() const override { return true; }

 private:
  at::Tensor x_;
};

// What a layer's gelu() would give, made for some tokens at a time.
class ChunkedGelu : public Activation::Producer {
 public:
  ChunkedGelu(Linear up, at::Tensor x, int64_t out, int64_t tokens)
      : up_(std::move(up)), x_(std::move(x)), tokens_(tokens) {
    auto sizes = x_.sizes().vec();
    sizes.back() = out;
    like_ = at::empty({1}, x_.options()).expand(sizes);
  }
  const at::Tensor& like() const override { return like_; }
  at::Tensor dense() const override { return up_.gelu(x_); }
  Activation e4m3() const override {
    const Activation whole(dense());
    return e4m3_of(std::span(&whole, 1));
  }
  int64_t tokens_at_once() const override { return tokens_; }
  Activation tokens(int64_t begin, int64_t count) const override {
    return up_.gelu(x_.narrow(0, begin, count));
  }

 private:
  Linear up_;
  at::Tensor x_, like_;
  int64_t tokens_;
};

}  // namespace

Activation Linear::gelu(const Activation& x) const {
  ENSURE(!sum_);
  if (const int64_t all = x.sizes().front(); chunks_ && all > chunks_->tokens) {
    const at::Tensor rows = x;
    chunks_->note(all, rows.numel() / all / weight_.in() * weight_.out() * rows.element_size());
    return Activation(
        std::make_unique<ChunkedGelu>(by_chunks(nullptr), rows, weight_.out(), chunks_->tokens));
  }
  if (weight_.is_e4m3()) return Activation(std::make_unique<Gelu>((*this)(x)));
  // The library's epilogue approximates tanh to about 16 bits: enough for half types only.
  const bool half = x.type() == at::kBFloat16 || x.type() == at::kHalf;
  const bool dense = x.is_dense() && weight_.is_dense();
  if (x.is_cuda() && half && dense && bias_.defined() && x.rows().numel() > 0 && weight_.out() > 0) {
    auto sizes = x.rows().sizes().vec();
    const auto rows = x.rows().reshape({-1, sizes.back()});
    sizes.back() = weight_.out();
    const auto y = tuned_product(rows, weight_.rows(), bias_, Epilogue::kBiasGelu);
    if (y.defined()) return y.view(sizes);
    return at::_addmm_activation(bias_, rows, weight_.rows().t(), 1, 1, true).view(sizes);
  }
  auto y = product(std::span(&x, 1), weight_, {});
  const int64_t channels = y.size(-1), rows = channels ? y.numel() / channels : 0;
  char* data = static_cast<char*>(y.data_ptr());
  const void* bias = bias_.defined() ? bias_.const_data_ptr() : nullptr;
  const int64_t bytes = channels * y.element_size();
  const auto where = launch_target_of(y);
  const auto type = dtype_of(y);
  if (where.cuda) {
    kernels::gelu_tanh(where, type, data, bias, rows, channels, channels);
    return y;
  }
  at::parallel_for(0, rows, grain(channels), [&](int64_t begin, int64_t end) {
    kernels::gelu_tanh(where, type, data + begin * bytes, bias, end - begin, channels, channels);
  });
  return y;
}

std::vector<at::Tensor> Linear::parts(const Activation& given, int64_t count) const {
  ENSURE(!sum_ && weight_.out() % count == 0);
  const Activation x = operand(given);
  if (x.is_cuda()) return (*this)(x).chunk(count, -1);
  const int64_t each = weight_.out() / count;
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < count; ++i) {
    const auto bias = bias_.defined() ? bias_.narrow(0, i * each, each) : at::Tensor();
    out.push_back(product(std::span(&x, 1), weight_.outputs(i * each, each), bias));
  }
  return out;
}

at::Tensor Linear::gated_gelu(const Activation& x, GatedGelu form) const {
  if (!x.is_cuda()) {
    const auto both = parts(x, 2);
    if (form == GatedGelu::kErfSecond) return both[0] * at::gelu(both[1]);
    return at::gelu(both[0], "tanh") * both[1];
  }
  const auto both = (*this)(x);
  auto sizes = both.sizes().vec();
  sizes.back() /= 2;
  auto out = at::empty(sizes, both.options());
  const int64_t rows = both.size(-1) ? both.numel() / both.size(-1) : 0;
  kernels::gated_gelu(launch_target_of(both), dtype_of(both), form, out.data_ptr(), both.const_data_ptr(),
                      rows, out.size(-1));
  return out;
}

void Linear::add_to_(const at::Tensor& y, const Activation& given) const {
  ENSURE(!sum_ && !bias_.defined());
  const Activation x = operand(given);
  if (x.is_cuda() && x.is_dense() && weight_.is_dense()) {
    const auto& rows = x.rows();
    if (add_tuned_product_(y, rows, weight_.rows())) return;
    y.view({-1, y.size(-1)}).addmm_(rows.reshape({-1, rows.size(-1)}), weight_.rows().t());
  } else {
    y.add_(product(std::span(&x, 1), weight_, {}));
  }
}

}  // namespace atelier::nn
