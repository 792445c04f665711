// What tests of adapters share: a file of chosen tensors, and a model's weights under chosen names.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>

#include <memory>
#include <string>
#include <vector>

#include "base/testing.h"
#include "weights/adapted_store.h"
#include "weights/tensors.h"

namespace atelier::weights {

inline at::Tensor numbers(at::IntArrayRef sizes, uint64_t seed = 1) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

// A folder with an adapter and a checkpoint.
class AdapterFolder {
 public:
  std::shared_ptr<const AdapterFile> adapter(const Tensors& tensors,
                                             const FileMetadata& metadata = {}) const {
    return std::make_shared<const AdapterFile>(write(tensors, metadata));
  }
  std::filesystem::path write(const Tensors& tensors, const FileMetadata& metadata = {},
                              const char* name = "adapter.safetensors") const {
    write_tensors(folder_ / name, tensors, metadata);
    return folder_ / name;
  }
  std::string refusal(const Tensors& tensors, const FileMetadata& metadata = {}) const {
    return message_of(Kind::kCheckpoint, [&] { adapter(tensors, metadata); });
  }
  std::unique_ptr<WeightStore> checkpoint(const Tensors& tensors) const {
    write_tensors(folder_ / "model.safetensors", tensors);
    return WeightStore::open(folder_ / "model.safetensors");
  }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

// Of all layers of a file, by names that stand in a table with dots.
inline Changes changes_of(const std::shared_ptr<const AdapterFile>& file, const LayerNames& names,
                          double strength = 1, std::string_view prefix = "") {
  Changes out;
  for (const auto& layer : file->layers()) {
    const auto* pieces = names.find(std::string_view(layer.name).substr(prefix.size()));
    if (!pieces) throw Error(Kind::kUsage, "no layer " + layer.name);
    out.add(std::make_shared<const LayerChange>(LayerChange{file, &layer, strength, *pieces}));
  }
  return out;
}

inline at::Tensor read(const WeightStore& store, std::string_view name, const std::vector<int64_t>& full,
                       const std::vector<Range>& rows = {}, const std::vector<Range>& cols = {},
                       at::ScalarType type = at::kFloat) {
  auto sizes = full;
  if (!rows.empty()) sizes[0] = size_of_all(rows);
  if (!cols.empty()) sizes[1] = size_of_all(cols);
  auto out = at::empty(sizes, at::TensorOptions(type));
  store.read_into(out, name, full, rows, cols);
  return out;
}

}  // namespace atelier::weights
