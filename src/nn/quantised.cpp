// Numbers rounded to eight bits.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <array>

#include "base/check.h"
#include "kernels/quantise.h"
#include "nn/launch_target.h"
#include "nn/product.h"

namespace atelier::nn {
namespace {

double largest(at::ScalarType type) {
  if (type == at::kFloat8_e5m2) return 57344;
  ENSURE(type == at::kChar);
  return 127;
}

struct Quantised {
  at::Tensor rows, scale;  // [..., C], [..., 1]
};

Quantised empty_e4m3(at::IntArrayRef sizes, c10::Device device) {
  auto of_scale = sizes.vec();
  of_scale.back() = 1;
  return {at::empty(sizes, at::TensorOptions(at::kFloat8_e4m3fn).device(device)),
          at::empty(of_scale, at::TensorOptions(at::kFloat).device(device))};
}

// segments: [rows, channels] of one type, neighbours in a row side by side.
void write(const Quantised& out, std::span<const at::Tensor> x, std::span<kernels::RowSegment> segments) {
  const int64_t rows = x[0].size(0);
  const auto where = launch_target_of(x[0]);
  const auto type = dtype_of(x[0]);
  int64_t channels = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    ENSURE(x[i].size(1) <= 1 || x[i].stride(1) == 1);
    segments[i].x = x[i].const_data_ptr();
    segments[i].channels = x[i].size(1);
    segments[i].row_stride = rows > 1 ? x[i].stride(0) : x[i].size(1);
    channels += segments[i].channels;
  }
  auto* bytes = static_cast<char*>(out.rows.data_ptr());
  auto* scales = out.scale.data_ptr<float>();
  if (where.cuda) return kernels::quantise_e4m3(where, type, {bytes, scales}, segments, rows);
  at::parallel_for(0, rows, grain(channels), [&](int64_t begin, int64_t end) {
    std::array<kernels::RowSegment, kernels::kMaxSegments> part;
    for (size_t i = 0; i < segments.size(); ++i) {
      part[i] = segments[i];
      part[i].x = static_cast<const char*>(part[i].x) + begin * part[i].row_stride * x[i].element_size();
    }
    kernels::quantise_e4m3(where, type, {bytes + begin * channels, scales + begin},
                           std::span(part).first(segments.size()), end - begin);
  });
}

at::Tensor as_rows(const at::Tensor& x) {
  const auto rows = x.reshape({-1, x.size(-1)});
  return rows.size(1) <= 1 || rows.stride(1) == 1 ? rows : rows.contiguous();
}

// {rows, scale [..., 1]}
Quantised quantise(const at::Tensor& x, at::ScalarType type) {
  if (type == at::kFloat8_e4m3fn) {
    auto out = empty_e4m3(x.sizes(), x.device());
    quantise_e4m3_into(x, out.rows, out.scale);
    return out;
  }
  const auto wide = x.to(at::kFloat);
  const auto most = wide.abs().amax(-1, /*keepdim=*/true);
  const auto scale = at::where(most > 0, most / largest(type), at::Scalar(1.0F));
  const auto scaled = wide / scale;
  return {(type == at::kChar ? scaled.round() : scaled).to(type), scale};
}

}  // namespace

void quantise_e4m3_into(const at::Tensor& x, at::Tensor rows, at::Tensor scale) {
  ENSURE(rows.is_contiguous() && scale.is_contiguous() && rows.sizes() == x.sizes());
  if (x.numel() == 0) return;
  const auto flat = as_rows(x);
  kernels::RowSegment segment;
  write({std::move(rows), std::move(scale)}, std::span(&flat, 1), std::span(&segment, 1));
}

Activation quantised(const at::Tensor& x, at::ScalarType type) {
  auto [rows, scale] = quantise(x, type);
  return {std::move(rows), std::move(scale), x.scalar_type()};
}

Weight quantised_weight(const at::Tensor& w, at::ScalarType type) {
  auto [rows, scale] = quantise(w, type);
  return {std::move(rows), std::move(scale)};
}

Activation e4m3_of(std::span<const Activation> all) {
  const auto& first = all.front();
  if (all.size() == 1 && first.unwritten_ && !first.unwritten_->from->is_gelu()) {
    auto& made = first.unwritten_->e4m3;
    if (!made) made = std::make_unique<const Activation>(first.unwritten_->from->e4m3());
    return *made;
  }
  if (all.size() == 1 && !first.is_dense()) return first;
  std::vector<at::Tensor> rows;
  std::vector<kernels::RowSegment> segments(all.size());
  auto sizes = first.sizes().vec();
  sizes.back() = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& a = all[i];
    segments[i].gelu = a.unwritten_ && a.unwritten_->from->is_gelu();
    rows.push_back(as_rows(segments[i].gelu ? a.unwritten_->from->like() : at::Tensor(a)));
    sizes.back() += rows.back().size(1);
  }
  const auto out = empty_e4m3(sizes, rows[0].device());
  if (out.rows.numel() > 0) write(out, rows, segments);
  return {out.rows, out.scale, first.type()};
}

}  // namespace atelier::nn
