// Places of blocks, their homes, and the fetch one block ahead.
#include "nn/streamed_memory.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "base/check.h"

namespace atelier::nn {
namespace {

constexpr int64_t kAlignment = 256;  // bytes: what matrix products and collectives like best

int64_t rounded_up(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

int64_t bytes_of(at::IntArrayRef sizes, const at::TensorOptions& options) {
  int64_t n = static_cast<int64_t>(options.dtype().itemsize());
  for (const int64_t size : sizes) n *= size;
  return n;
}

// Elements of a weight that lie in a share of its block, all in bytes of the block.
Range within(Range share, Range weight, int64_t itemsize) {
  const Range here = intersection(share, weight);
  return {(here.size > 0 ? here.begin - weight.begin : 0) / itemsize, here.size / itemsize};
}

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

Allocation BlockSizes::take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (block >= 0) bytes_[block] += rounded_up(bytes_of(sizes, options), kAlignment);
  auto weight = at::empty(sizes, options.device(c10::kMeta));
  const int64_t elements = weight.numel();
  return {std::move(weight), {0, elements}};
}

StreamedMemory::StreamedMemory(const std::map<int, int64_t>& bytes, c10::Device device,
                               const at::TensorOptions& home, Share share)
    : share_(share) {
  std::array<int64_t, kSlots> largest{};
  for (const auto& [index, size] : bytes) {
    Block block{.slot = static_cast<int>(blocks_.size() % kSlots)};
    const int64_t all = rounded_up(size, kAlignment * share.ranks);
    block.home = at::empty({all / share.ranks}, home.dtype(at::kByte));
    auto& most = largest[static_cast<size_t>(block.slot)];
    most = std::max(most, all);
    blocks_.emplace(index, std::move(block));
  }
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].memory = at::empty({largest[i]}, at::TensorOptions(at::kByte).device(device));
  }
}

at::Tensor StreamedMemory::place(const Block& block) const {
  return slots_[static_cast<size_t>(block.slot)].memory.narrow(0, 0, block.home.numel() * share_.ranks);
}

Range StreamedMemory::share(const Block& block) const {
  return {share_.rank * block.home.numel(), block.home.numel()};
}

Range StreamedMemory::held(int block, const at::Tensor& weight) const {
  if (block < 0) return {0, weight.numel()};
  const auto& b = blocks_.at(block);
  const int64_t first =
      static_cast<const char*>(weight.const_data_ptr()) - static_cast<const char*>(place(b).const_data_ptr());
  return within(share(b), {first, static_cast<int64_t>(weight.nbytes())}, weight.element_size());
}

Allocation StreamedMemory::take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (block < 0) {
    auto weight = at::empty(sizes, options);
    const int64_t elements = weight.numel();
    return {std::move(weight), {0, elements}};
  }
  if (building_ != block) {
    ENSURE(building_ == -1);
    building_ = block;
    taken_ = 0;
  }
  const auto& b = blocks_.at(block);
  const auto whole = place(b);
  const int64_t bytes = bytes_of(sizes, options), begin = taken_;
  taken_ += rounded_up(bytes, kAlignment);
  ENSURE(taken_ <= whole.numel());
  const Range mine = share(b);
  return {whole.narrow(0, begin, bytes).view(c10::typeMetaToScalarType(options.dtype())).view(sizes),
          within(mine, {begin, bytes}, static_cast<int64_t>(options.dtype().itemsize()))};
}

void StreamedMemory::finish(int block) {
  if (block < 0) return;
  ENSURE(building_ == block);
  building_ = -1;
  const auto& b = blocks_.at(block);
  const Range mine = share(b);
  b.home.copy_(place(b).narrow(0, mine.begin, mine.size));
  slots_[static_cast<size_t>(b.slot)].holds = -1;
}

void StreamedMemory::reopen(int block) {
  if (block < 0) return;
  ENSURE(building_ == -1);
  building_ = block;
  const auto& b = blocks_.at(block);
  wait(b.slot);
  slots_[static_cast<size_t>(b.slot)].holds = -1;
  const Range mine = share(b);
  place(b).narrow(0, mine.begin, mine.size).copy_(b.home);
}

void StreamedMemory::will_run(std::span<const int> blocks) {
  if (!blocks.empty() && blocks.front() < 0) return;  // resident
  order_.assign(blocks.begin(), blocks.end());
  next_ = 0;
  // A recorded CUDA graph fetches what it fetched when it was recorded, whatever ran before it: so nothing is
  // taken over from an earlier run, unless every block has a slot of its own.
  for (int i = 0; i < kSlots; ++i) {
    wait(i);
    if (std::ssize(blocks_) > kSlots) slots_[static_cast<size_t>(i)].holds = -1;
  }
  if (!order_.empty()) bring(order_.front());
}

void StreamedMemory::bring(int block) {
  const auto& b = blocks_.at(block);
  auto& slot = slots_[static_cast<size_t>(b.slot)];
  if (slot.holds == block) return;
  wait(b.slot);
  slot.holds = -1;
  fetch(b.slot, place(b), b.home);
  slot.holds = block;
}

void StreamedMemory::before(int block) {
  if (block < 0) return;
  ENSURE(next_ < order_.size() && order_[next_] == block);
  ++next_;
  bring(block);
  const int slot = blocks_.at(block).slot;
  wait(slot);
  if (next_ < order_.size() && blocks_.at(order_[next_]).slot != slot) bring(order_[next_]);
}

void StreamedMemory::abandon() noexcept {
  order_.clear();
  next_ = 0;
  for (int i = 0; i < kSlots; ++i) {
    forget(i);
    slots_[static_cast<size_t>(i)].holds = -1;
  }
}

int64_t StreamedMemory::bytes_in_place() const {
  int64_t all = 0;
  for (const auto& slot : slots_) all += slot.memory.numel();
  return all;
}

int64_t StreamedMemory::bytes_at_home() const {
  int64_t all = 0;
  for (const auto& [index, block] : blocks_) all += block.home.numel();
  return all;
}

Offloaded::Offloaded(const std::map<int, int64_t>& bytes, c10::Device device)
    : StreamedMemory(bytes, device, at::TensorOptions().pinned_memory(device.is_cuda()), {}),
      device_(device) {
  if (device.is_cuda())
    copies_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, false);
}

// The slots' memory goes back to the current stream: no copy may still write there.
Offloaded::~Offloaded() {
  try {
    for (int i = 0; i < kSlots; ++i) wait(i);
  } catch (const std::exception&) {  // the device is lost, and its memory with it
  }
}

Allocation Offloaded::take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) {
  return block == kTables ? tables_.take(block, sizes, options) : StreamedMemory::take(block, sizes, options);
}

void Offloaded::finish(int block) {
  block == kTables ? tables_.release() : StreamedMemory::finish(block);
}

void Offloaded::reopen(int block) {
  block == kTables ? tables_.reopen(block) : StreamedMemory::reopen(block);
}

void Offloaded::will_run(std::span<const int> blocks) {
  const bool evaluates = !blocks.empty() && blocks.front() == kTables;
  if (evaluates) return tables_.will_run(blocks);
  tables_.release();
  StreamedMemory::will_run(blocks);
}

void Offloaded::release() {
  tables_.release();
}

void Offloaded::fetch(int slot, at::Tensor place, const at::Tensor& home) {
  if (!copies_) {
    place.copy_(home);
    return;
  }
  c10::Event free(device_.type());
  free.record(current_stream(device_));
  free.block(*copies_);
  const c10::StreamGuard guard(*copies_);
  place.copy_(home, /*non_blocking=*/true);
  arrived_[static_cast<size_t>(slot)].emplace(device_.type()).record(*copies_);
}

void Offloaded::wait(int slot) {
  auto& arrived = arrived_[static_cast<size_t>(slot)];
  if (arrived) arrived->block(current_stream(device_));
  arrived.reset();
}

}  // namespace atelier::nn
