#include "nn/reread.h"

#include <ATen/ops/empty.h>

#include <map>

#include "weights/store.h"

namespace atelier::nn {
namespace {

int64_t row_bytes(const at::Tensor& tensor) {
  return tensor.size(0) == 0 ? 0 : static_cast<int64_t>(tensor.nbytes()) / tensor.size(0);
}

// Those rows of which elements, or scales, are kept here; bytes.
int64_t read_held(const HeldWeight& weight, const BlockMemory& memory, const weights::WeightStore& store) {
  auto tensor = weight.tensor;
  if (!tensor.is_contiguous()) {  // channels last
    auto plain = weight;
    plain.tensor = at::empty(tensor.sizes(), tensor.options());
    read(store, plain);
    tensor.copy_(plain.tensor);
    return static_cast<int64_t>(tensor.nbytes());
  }
  const Range rows = rows_holding(memory.held(weight.block, tensor), tensor.numel() / tensor.size(0));
  int64_t bytes = rows.size * row_bytes(tensor);
  read_rows(store, weight, rows);
  if (!weight.scale.defined()) return bytes;
  const Range scales = memory.held(weight.block, weight.scale);
  if (intersection(scales, rows) == scales) return bytes;
  read_rows(store, weight, scales);
  return bytes + scales.size * row_bytes(tensor);
}

}  // namespace

Reread reread(const Manifest& manifest, BlockMemory& memory, const weights::WeightStore& store,
              const std::set<std::string, std::less<>>& names) {
  std::map<int, std::vector<const HeldWeight*>> blocks;
  for (const auto& weight : manifest) {
    if (names.contains(weight.name) && weight.tensor.numel() > 0) blocks[weight.block].push_back(&weight);
  }
  Reread done;
  for (const auto& [block, weights] : blocks) {
    memory.reopen(block);
    try {
      for (const auto* weight : weights) {
        done.bytes += read_held(*weight, memory, store);
        ++done.tensors;
      }
    } catch (...) {
      memory.finish(block);  // closed, so that it can be opened again
      throw;
    }
    memory.finish(block);
  }
  return done;
}

}  // namespace atelier::nn
