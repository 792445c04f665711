// Checkpoints under other names: the bytes of the tensors and their order stay.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace atelier::weights {

// Names in a checkpoint, in the order of their bytes. from: as WeightStore::open takes it. Throws
// Error(kCheckpoint).
std::vector<std::string> tensor_names(const std::filesystem::path& from);

struct Renamed {
  int64_t tensors = 0, bytes = 0;
  std::vector<std::filesystem::path> files;  // that were written, without an index
};

struct RenameOptions {
  // A path that ends in .safetensors is one file, any other a folder of shards.
  std::filesystem::path to;
  int64_t max_shard_bytes = 5'000'000'000;
};

// A header's text entries of a single file go along. Throws Error(kCheckpoint) for a checkpoint that is
// broken, that is GGUF, or whose header says something of tensors by their names, Error(kUsage, kCapacity) as
// SafetensorsWriter does. new_name: different for different names.
Renamed rename_tensors(const std::filesystem::path& from, const RenameOptions& options,
                       const std::function<std::string(const std::string&)>& new_name);

}  // namespace atelier::weights
