// A block is gathered from the shares of all ranks.
#include "parallel/shards.h"

namespace atelier::parallel {

Sharded::Sharded(comm::Comm& group, const std::map<int, int64_t>& bytes, c10::Device device)
    : StreamedMemory(bytes, device, at::TensorOptions().device(device), {group.rank(), group.size()}),
      group_(group) {}

void Sharded::fetch(int slot, at::Tensor place, const at::Tensor& home) {
  const std::vector<int64_t> split(static_cast<size_t>(group_.size()), home.numel());
  gathers_[static_cast<size_t>(slot)] = group_.all_gather(place, home, split);
}

}  // namespace atelier::parallel
