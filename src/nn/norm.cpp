#include "nn/norm.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include "base/check.h"
#include "kernels/kernels.h"
#include "kernels/quantise.h"
#include "nn/launch_target.h"

namespace atelier::nn {
namespace {

constexpr double kEps = 1e-6;

template <class F>
void over_rows(kernels::LaunchTarget where, const at::Tensor& x, F f) {
  if (where.cuda) return f(0, x.size(0));
  at::parallel_for(0, x.size(0), grain(x.size(1) * x.size(2)), f);
}

// What norm() gives.
class Normalised : public Activation::Producer {
 public:
  Normalised(at::Tensor x, std::vector<ModulatedTokens> parts) : x_(std::move(x)), parts_(std::move(parts)) {
    ENSURE(x_.is_contiguous());
    int64_t tokens = 0;
    for (const auto& [n, m] : parts_) {
      ENSURE(m.shift.stride(-1) == 1 && m.shift.stride(0) == m.scale.stride(0));
      tokens += n;
    }
    ENSURE(tokens == x_.size(0));
  }
  const at::Tensor& like() const override { return x_; }

  at::Tensor dense() const override {
    auto out = at::empty_like(x_);
    const int64_t row = x_.size(1) * x_.size(2) * x_.element_size();
    char* to = static_cast<char*>(out.data_ptr());
    run([&](kernels::LaunchTarget where, const Modulation& m, const void* from, int64_t begin,
            int64_t count) {
      kernels::norm_modulate(where, dtype_of(x_), to + begin * row, from, m.shift.const_data_ptr(),
                             m.scale.const_data_ptr(), count, x_.size(1), x_.size(2), m.shift.stride(0),
                             kEps);
    });
    return out;
  }

  Activation e4m3() const override {
    const int64_t batch = x_.size(1), channels = x_.size(2);
    auto rows = at::empty(x_.sizes(), x_.options().dtype(at::kFloat8_e4m3fn));
    auto scale = at::empty({x_.size(0), batch, 1}, x_.options().dtype(at::kFloat));
    char* to = static_cast<char*>(rows.data_ptr());
    float* scales = scale.data_ptr<float>();
    run([&](kernels::LaunchTarget where, const Modulation& m, const void* from, int64_t begin,
            int64_t count) {
      const kernels::E4m3Rows out{to + begin * batch * channels, scales + begin * batch};
      kernels::norm_modulate_e4m3(where, dtype_of(x_), out, from, m.shift.const_data_ptr(),
                                  m.scale.const_data_ptr(), count, batch, channels, m.shift.stride(0), kEps);
    });
    return {std::move(rows), std::move(scale), x_.scalar_type()};
  }

 private:
  // f(where, modulation, tokens from begin on, begin, count)
  template <class F>
  void run(F f) const {
    const auto where = launch_target_of(x_);
    const int64_t row = x_.size(1) * x_.size(2) * x_.element_size();
    const char* from = static_cast<const char*>(x_.const_data_ptr());
    int64_t first = 0;
    for (const auto& [tokens, m] : parts_) {
      if (tokens == 0) continue;
      over_rows(where, x_.narrow(0, first, tokens), [&, &modulation = m](int64_t begin, int64_t end) {
        f(where, modulation, from + (first + begin) * row, first + begin, end - begin);
      });
      first += tokens;
    }
  }

  at::Tensor x_;
  std::vector<ModulatedTokens> parts_;
};

}  // namespace

Activation norm(const at::Tensor& x, const Modulation& m) {
  return Activation(std::make_unique<Normalised>(x, std::vector<ModulatedTokens>{{x.size(0), m}}));
}

Activation norm(const at::Tensor& x, std::span<const ModulatedTokens> parts) {
  return Activation(
      std::make_unique<Normalised>(x, std::vector<ModulatedTokens>(parts.begin(), parts.end())));
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

void gated_(const at::Tensor& x, std::span<const ModulatedTokens> parts, const at::Tensor& y) {
  int64_t first = 0;
  for (const auto& [tokens, m] : parts) {
    gated_(x.narrow(0, first, tokens), m.gate, y.narrow(0, first, tokens));
    first += tokens;
  }
  ENSURE(first == x.size(0));
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

std::vector<at::Tensor> across_heads(std::span<const AcrossHeadsNorm* const> norms,
                                     std::span<const at::Tensor> xs) {
  ENSURE(!norms.empty() && norms.size() == xs.size());
  std::vector<at::Tensor> out;
  if (!norms[0]->sum) {
    for (size_t i = 0; i < xs.size(); ++i) out.push_back(RmsNorm{norms[i]->weight, norms[i]->eps}(xs[i]));
    return out;
  }
  const auto wide = [](const at::Tensor& x) { return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat); };
  for (const auto& x : xs) out.push_back(wide(x).square().sum(-1, true));
  auto squares = at::cat(out, -1);  // [n, B, tensors]
  norms[0]->sum->sum(squares);
  for (size_t i = 0; i < xs.size(); ++i) {
    const auto mean = squares.narrow(-1, static_cast<int64_t>(i), 1) / norms[i]->width;
    out[i] = (wide(xs[i]) * at::rsqrt(mean + norms[i]->eps)).to(xs[i].scalar_type()) * norms[i]->weight;
  }
  return out;
}

}  // namespace atelier::nn
