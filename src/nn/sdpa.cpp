#include "nn/sdpa.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "nn/hopper_attention.h"
#include "nn/optional_kernel.h"
#include "nn/ordered.h"
#include "nn/wide_attention.h"

namespace atelier::nn {

#ifndef ATELIER_CUDA
std::string hopper_attention_problem(c10::Device, at::ScalarType, int64_t) {
  return "FlashAttention 3 runs on GPUs, and this build is without CUDA";
}
AttentionOutput hopper_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  throw std::logic_error("internal error: a CUDA kernel was asked of a build without CUDA");
}
#endif

namespace {

OptionalKernel& flash3() {
  static OptionalKernel kernel;
  return kernel;
}

bool is_half(const at::Tensor& t) {
  return t.scalar_type() == at::kHalf || t.scalar_type() == at::kBFloat16;
}

// Where FlashAttention-3 takes less time than cuDNN, or the same: heads wider than 64, and those of
// 64 whose keys do not fill cuDNN's tiles. Measured with as many queries as keys or more, from 512
// keys on (results/attention.json).
bool is_faster_by_flash3(int64_t keys, int64_t width) {
  constexpr int64_t kLeastKeys = 512, kTile = 128;
  return keys >= kLeastKeys && width >= 64 && (width > 64 || keys % kTile != 0);
}

SdpaBackend choose(SdpaBackend asked, const at::Tensor& q, int64_t keys) {
  const bool wants_flash3 =
      asked == SdpaBackend::kFlash3 || (asked == SdpaBackend::kAuto && is_faster_by_flash3(keys, q.size(-1)));
  if (wants_flash3 && flash3().failure().empty() &&
      hopper_attention_problem(q.device(), q.scalar_type(), q.size(-1)).empty())
    return SdpaBackend::kFlash3;
  if (asked == SdpaBackend::kFlash3)
    asked = SdpaBackend::kAuto;  // what it cannot take, such as heads of autoencoders
  if (!q.is_cuda())
    return asked == SdpaBackend::kMath || asked == SdpaBackend::kOrdered ? asked : SdpaBackend::kFlash;
  const int64_t d = q.size(-1);
  const bool cudnn = is_half(q) && d % 8 == 0 && d <= 128;
  const bool flash = is_half(q) && d % 8 == 0 && d <= 256;
  const bool efficient = q.scalar_type() != at::kDouble && d % (is_half(q) ? 8 : 4) == 0;
  if (asked == SdpaBackend::kAuto || asked == SdpaBackend::kCudnn) {
    if (cudnn) return SdpaBackend::kCudnn;
  }
  if ((asked == SdpaBackend::kAuto || asked == SdpaBackend::kFlash) && flash) return SdpaBackend::kFlash;
  if (asked == SdpaBackend::kAuto && is_half(q) && d > 256) return SdpaBackend::kProducts;
  if (asked != SdpaBackend::kMath && efficient) return SdpaBackend::kEfficient;
  return SdpaBackend::kMath;
}

// Whether FlashAttention-3 is to read e4m3 itself.
bool takes_e4m3(SdpaBackend asked, const at::Tensor& q) {
  return (asked == SdpaBackend::kAuto || asked == SdpaBackend::kFlash3) && flash3().failure().empty() &&
         hopper_attention_problem(q.device(), q.scalar_type(), q.size(-1)).empty();
}

// [n, B, h, d] -> [B, h, n, d]
at::Tensor as_heads(const at::Tensor& t) {
  return t.permute({1, 2, 0, 3});
}

AttentionOutput math(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto acc_dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto scores = at::matmul(q.to(acc_dtype), k.to(acc_dtype).transpose(-1, -2)) /
                      std::sqrt(static_cast<double>(q.size(-1)));
  return {at::matmul(at::softmax(scores, -1), v.to(acc_dtype)).to(q.scalar_type()),
          at::logsumexp(scores, {-1})};
}

AttentionOutput run_kernel(SdpaBackend backend, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           Lse lse) {
  const bool need = lse == Lse::kNeeded;
  switch (backend) {
    case SdpaBackend::kCudnn: {
      auto r = at::_scaled_dot_product_cudnn_attention(q, k, v, {}, need, 0.0, false, false);
      // cuDNN gives [B, h, n, 1] in some versions.
      auto stats = std::get<1>(r);
      if (need && stats.dim() == 4) stats = stats.squeeze(-1);
      return {std::get<0>(r), stats};
    }
    case SdpaBackend::kFlash: {
      if (!q.is_cuda()) {
        auto r = at::_scaled_dot_product_flash_attention_for_cpu(q, k, v);
        // [B, n, h] in memory, [B, h, n] by strides
        return {std::get<0>(r), std::get<1>(r)};
      }
      auto r = at::_scaled_dot_product_flash_attention(q, k, v, 0.0, false, false);
      return {std::get<0>(r), std::get<1>(r)};
    }
    case SdpaBackend::kEfficient: {
      auto r = at::_scaled_dot_product_efficient_attention(q, k, v, {}, need, 0.0, false);
      auto stats = std::get<1>(r);
      if (need) stats = stats.narrow(2, 0, q.size(2));  // rounded up to 32 by the kernel
      return {std::get<0>(r), stats};
    }
    case SdpaBackend::kProducts:
      return wide_attention(q, k, v);
    case SdpaBackend::kOrdered:
      ENSURE(!need && OrderedArithmetic::is_on());
      return {at::scaled_dot_product_attention(q, k, v), {}};
    default:
      return math(q, k, v);
  }
}

const char* name_of(SdpaBackend backend, bool cuda) {
  switch (backend) {
    case SdpaBackend::kCudnn:
      return "attention: cuDNN";
    case SdpaBackend::kFlash:
      return cuda ? "attention: FlashAttention-2" : "attention: CPU flash";
    case SdpaBackend::kFlash3:
      return "attention: FlashAttention-3";
    case SdpaBackend::kEfficient:
      return "attention: memory-efficient";
    case SdpaBackend::kProducts:
      return "attention: products";
    case SdpaBackend::kOrdered:
      return "attention: sums in one order";
    default:
      return "attention: math";
  }
}

constexpr const char* kFromE4m3 = ", queries, keys and values in e4m3";

}  // namespace

std::string hopper_attention_failure() {
  return flash3().failure();
}

std::set<std::string> Sdpa::used() const {
  std::set<std::string> names;
  for (const auto& [backend, on_cuda, from_e4m3] : ran_)
    names.insert(std::string(name_of(backend, on_cuda)) + (from_e4m3 ? kFromE4m3 : ""));
  return names;
}

AttentionOutput Sdpa::run(const CallContext&, const AttentionLayer& layer, KvExtent, const at::Tensor& q,
                          const at::Tensor& kv, Lse lse) {
  const auto type = layer.attended_type(q);
  const auto acc_dtype = type == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t batch = q.size(1), heads = q.size(2);
  if (q.numel() == 0 || kv.numel() == 0) {
    return {at::zeros(q.sizes(), q.options().dtype(type)),
            at::full({batch, heads, q.size(0)}, -std::numeric_limits<double>::infinity(),
                     q.options().dtype(acc_dtype))};
  }
  const auto run_flash3 = [&](const at::Tensor& queries, const at::Tensor& keys_and_values) {
    return flash3().run([&] {
      return hopper_attention(as_heads(queries), as_heads(keys_and_values.select(2, 0)),
                              as_heads(keys_and_values.select(2, 1)));
    });
  };
  std::optional<AttentionOutput> done;
  auto backend = SdpaBackend::kFlash3;
  if (layer.is_e4m3 && takes_e4m3(backend_, q)) done = run_flash3(q, kv);
  if (!done) {
    const auto queries = q.to(type), keys_and_values = kv.to(type);  // the same where they are not e4m3
    backend = choose(backend_, queries, kv.size(0));
    if (backend == SdpaBackend::kFlash3) done = run_flash3(queries, keys_and_values);
    if (!done) {
      backend = choose(backend_, queries, kv.size(0));  // without it, if it has failed
      done = run_kernel(backend, as_heads(queries), as_heads(keys_and_values.select(2, 0)),
                        as_heads(keys_and_values.select(2, 1)), lse);
    }
  }
  ran_.emplace(backend, q.is_cuda(), layer.is_e4m3);
  AttentionOutput a = std::move(*done);
  a.out = a.out.permute({2, 0, 1, 3}).contiguous().to(type);
  return a;
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias,
                  double scale) {
  std::optional<at::Tensor> mask;
  if (bias.defined()) mask = bias;
  // cuDNN takes half the time of what the library chooses where scores have a bias, but only in whole packs.
  const bool packed = q.size(2) % 8 == 0 && k.size(2) % 8 == 0 && q.size(3) % 8 == 0 && q.size(3) <= 128;
  if (q.is_cuda() && is_half(q) && bias.defined() && packed && q.numel() > 0) {
    return std::get<0>(
        at::_scaled_dot_product_cudnn_attention(q, k, v, mask, false, 0.0, false, false, scale));
  }
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale);
}

}  // namespace atelier::nn
