#include "nn/norm.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include "base/check.h"
#include "kernels/kernels.h"
#include "nn/launch_target.h"

namespace atelier::nn {
namespace {

constexpr double kEps = 1e-6;

template <class F>
void over_rows(kernels::LaunchTarget where, const at::Tensor& x, F f) {
  if (where.cuda) return f(0, x.size(0));
  at::parallel_for(0, x.size(0), grain(x.size(1) * x.size(2)), f);
}

}  // namespace

Activation norm(const at::Tensor& x, const Modulation& m) {
  ENSURE(x.is_contiguous() && m.shift.stride(-1) == 1 && m.shift.stride(0) == m.scale.stride(0));
  auto out = at::empty_like(x);
  const auto where = launch_target_of(x);
  const auto type = dtype_of(x);
  const int64_t row = x.size(1) * x.size(2) * x.element_size();
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.data_ptr());
  over_rows(where, x, [&](int64_t begin, int64_t end) {
    kernels::norm_modulate(where, type, to + begin * row, from + begin * row, m.shift.const_data_ptr(),
                           m.scale.const_data_ptr(), end - begin, x.size(1), x.size(2), m.shift.stride(0),
                           kEps);
  });
  return out;
}

void gated_(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y_any) {
  const auto y = y_any.contiguous();
  ENSURE(x.is_contiguous() && x.sizes() == y.sizes() && gate.stride(-1) == 1);
  const auto where = launch_target_of(x);
  const auto type = dtype_of(x);
  const int64_t row = x.size(1) * x.size(2) * x.element_size();
  char* to = static_cast<char*>(x.data_ptr());
  const char* from = static_cast<const char*>(y.const_data_ptr());
  over_rows(where, x, [&](int64_t begin, int64_t end) {
    kernels::gated_add(where, type, to + begin * row, from + begin * row, nullptr, gate.const_data_ptr(),
                       end - begin, x.size(1), x.size(2), gate.stride(0));
  });
}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  if (x.is_cuda()) return std::get<0>(at::_fused_rms_norm(x, {x.size(-1)}, weight, eps));
  const auto wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const auto scaled = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return scaled.to(x.scalar_type()) * weight;
}

}  // namespace atelier::nn
