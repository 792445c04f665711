#include "pipeline/copy_rate.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>

#include "pipeline/device.h"

namespace atelier::pipeline {

double copy_rate(c10::Device from, c10::Device to, int64_t bytes) {
  constexpr int kCopies = 4;
  const auto source = at::zeros({bytes}, at::TensorOptions(at::kByte).device(from));
  auto target = at::zeros({bytes}, at::TensorOptions(at::kByte).device(to));
  const auto finish = [&] {
    synchronize(from);
    synchronize(to);
  };
  target.copy_(source, /*non_blocking=*/true);
  finish();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kCopies; ++i) target.copy_(source, /*non_blocking=*/true);
  finish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return kCopies * static_cast<double>(bytes) / std::max(seconds.count(), 1e-9);
}

}  // namespace atelier::pipeline
