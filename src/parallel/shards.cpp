// Arenas of blocks, their shares, and the gather one block ahead.
#include "parallel/shards.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>

#include <algorithm>

#include "base/check.h"

namespace atelier::parallel {
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

}  // namespace

at::Tensor BlockSizes::take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (block != kResident) bytes_[block] += rounded_up(bytes_of(sizes, options), kAlignment);
  return at::empty(sizes, options.device(c10::kMeta));
}

ShardedMemory::ShardedMemory(comm::Comm& group, const std::map<int, int64_t>& bytes, c10::Device device)
    : group_(group) {
  const auto raw = at::TensorOptions(at::kByte).device(device);
  int64_t largest[2] = {0, 0};
  for (const auto& [index, size] : bytes) {
    Block block{.slot = static_cast<int>(blocks_.size() % 2)};
    const int64_t share = rounded_up(size, kAlignment * group.size()) / group.size();
    block.share = at::empty({share}, raw);
    largest[block.slot] = std::max(largest[block.slot], share * group.size());
    blocks_.emplace(index, std::move(block));
  }
  for (int i = 0; i < 2; ++i) slots_[i].memory = at::empty({largest[i]}, raw);
}

at::Tensor ShardedMemory::arena(const Block& block) const {
  return slots_[block.slot].memory.narrow(0, 0, block.share.numel() * group_.size());
}

at::Tensor ShardedMemory::take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (block == kResident) return at::empty(sizes, options);
  if (building_ != block) {
    ENSURE(building_ == -1);
    building_ = block;
    taken_ = 0;
  }
  const auto whole = arena(blocks_.at(block));
  const int64_t bytes = bytes_of(sizes, options), begin = taken_;
  taken_ += rounded_up(bytes, kAlignment);
  ENSURE(taken_ <= whole.numel());
  return whole.narrow(0, begin, bytes).view(c10::typeMetaToScalarType(options.dtype())).view(sizes);
}

void ShardedMemory::finish(int block) {
  ENSURE(building_ == block);
  building_ = -1;
  auto& b = blocks_.at(block);
  b.share.copy_(arena(b).narrow(0, group_.rank() * b.share.numel(), b.share.numel()));
  slots_[b.slot].holds = -1;
}

void ShardedMemory::start(std::span<const int> blocks) {
  order_.assign(blocks.begin(), blocks.end());
  next_ = 0;
  // A recorded CUDA graph gathers what it gathered when it was recorded, whatever ran before it: so nothing
  // is taken over from an earlier run, unless every block has a slot of its own.
  for (auto& slot : slots_) {
    slot.gather.wait();
    if (blocks_.size() > 2) slot.holds = -1;
  }
  if (!order_.empty()) fetch(order_.front());
}

void ShardedMemory::fetch(int block) {
  const auto& b = blocks_.at(block);
  auto& slot = slots_[b.slot];
  if (slot.holds == block) return;
  slot.gather.wait();
  auto whole = arena(b);
  const std::vector<int64_t> split(static_cast<size_t>(group_.size()), b.share.numel());
  slot.gather = group_.all_gather(whole, b.share, split);
  slot.holds = block;
}

void ShardedMemory::before(int block) {
  ENSURE(next_ < order_.size() && order_[next_] == block);
  ++next_;
  fetch(block);
  slots_[blocks_.at(block).slot].gather.wait();
  if (next_ < order_.size() && blocks_.at(order_[next_]).slot != blocks_.at(block).slot) fetch(order_[next_]);
}

int64_t ShardedMemory::bytes() const {
  int64_t all = 0;
  for (const auto& slot : slots_) all += slot.memory.numel();
  for (const auto& [index, block] : blocks_) all += block.share.numel();
  return all;
}

}  // namespace atelier::parallel
