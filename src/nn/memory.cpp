#include "nn/memory.h"

#include <ATen/ops/empty.h>

#include <utility>

namespace atelier::nn {

void BlockMemory::finish(int) {}
void BlockMemory::reopen(int) {}
Range BlockMemory::held(int, const at::Tensor& weight) const {
  return {0, weight.numel()};
}
void BlockMemory::will_run(std::span<const int>) {}
void BlockMemory::before(int) {}
void BlockMemory::abandon() noexcept {}
void BlockMemory::release() {}

Allocation Resident::take(int, at::IntArrayRef sizes, const at::TensorOptions& options) {
  auto weight = at::empty(sizes, options);
  const int64_t elements = weight.numel();
  return {std::move(weight), {0, elements}};
}

Allocation Parked::take(int, at::IntArrayRef sizes, const at::TensorOptions& options) {
  auto weight = at::empty(sizes, options);
  weights_.push_back({weight, {}});
  return {weight, {0, weight.numel()}};
}

void Parked::will_run(std::span<const int>) {
  if (std::exchange(is_in_, true)) return;
  for (const auto& [weight, home] : weights_) {
    auto* storage = weight.storage().unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(storage->allocator()->allocate(storage->nbytes()));
    weight.copy_(home, /*non_blocking=*/true);
  }
}

void Parked::reopen(int) {
  will_run({});
  is_changed_ = true;
}

void Parked::release() {
  if (!std::exchange(is_in_, false)) return;
  const bool is_changed = std::exchange(is_changed_, false);
  for (auto& [weight, home] : weights_) {
    const bool is_new = !home.defined();
    if (is_new) {
      home =
          at::empty(weight.sizes(), at::TensorOptions(weight.scalar_type()).pinned_memory(weight.is_cuda()));
    }
    if (is_new || is_changed) home.copy_(weight);
    weight.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(nullptr, weight.device()));
  }
}

int64_t Parked::bytes() const {
  int64_t all = 0;
  for (const auto& w : weights_) all += is_in_ ? static_cast<int64_t>(w.weight.nbytes()) : 0;
  return all;
}

}  // namespace atelier::nn
