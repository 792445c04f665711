#include "nn/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_addmm_activation.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include "base/check.h"
#include "kernels/kernels.h"
#include "nn/launch_target.h"

namespace atelier::nn {
namespace {

std::vector<int64_t> with_last(at::IntArrayRef sizes, int64_t last) {
  auto out = sizes.vec();
  out.back() = last;
  return out;
}

}  // namespace

at::Tensor Linear::close(at::Tensor product) const {
  sum_->sum(product);
  return bias_.defined() ? product.add_(bias_) : product;
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  if (sum_) return close(at::linear(x, weight_));
  return bias_.defined() ? at::linear(x, weight_, bias_) : at::linear(x, weight_);
}

at::Tensor Linear::operator()(std::initializer_list<at::Tensor> segments) const {
  at::Tensor y;
  int64_t column = 0;
  for (const auto& x : segments) {
    const int64_t in = x.size(-1);
    const auto w = weight_.narrow(1, column, in).t();
    const auto rows = x.reshape({-1, in});
    if (y.defined()) {
      y.addmm_(rows, w);
    } else {
      y = bias_.defined() && !sum_ ? at::addmm(bias_, rows, w) : at::mm(rows, w);
    }
    column += in;
  }
  ENSURE(column == weight_.size(1));
  y = y.view(with_last(segments.begin()->sizes(), weight_.size(0)));
  return sum_ ? close(y) : y;
}

at::Tensor Linear::gelu(const at::Tensor& x) const {
  ENSURE(!sum_);
  // The library's epilogue approximates tanh to about 16 bits: enough for half types only.
  const bool half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  if (x.is_cuda() && half && bias_.defined() && x.numel() > 0 && weight_.size(0) > 0) {
    const auto rows = x.reshape({-1, x.size(-1)});
    return at::_addmm_activation(bias_, rows, weight_.t(), 1, 1, true)
        .view(with_last(x.sizes(), weight_.size(0)));
  }
  auto y = at::linear(x, weight_);
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

}  // namespace atelier::nn
