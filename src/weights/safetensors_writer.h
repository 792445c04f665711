// Writing safetensors files: one file, or shards with an index. Streaming and atomic. Torch-free.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "weights/safetensors.h"

namespace atelier::weights {

// Writes one file: the header at once, then the tensors' bytes in the promised order. Nothing stands under
// the final name before finish(); without finish() nothing is left behind.
class SafetensorsWriter {
 public:
  // Throws Error(kCapacity) when the disk has too little room, Error(kUsage) when the place is not writable.
  SafetensorsWriter(std::filesystem::path path, std::span<const TensorSpec> specs,
                    const FileMetadata& metadata);
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  ~SafetensorsWriter();

  void append(std::span<const std::byte> bytes);
  void finish();
  // Bytes of tensors still to come.
  int64_t missing() const { return missing_; }

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
  int64_t missing_ = 0;
};

struct Whole {
  TensorSpec spec;
  std::span<const std::byte> bytes;
};

// Writes tensors that are in memory, widest types first so that each is aligned.
void write_safetensors(const std::filesystem::path& path, std::span<const Whole> tensors,
                       const FileMetadata& metadata);

// A folder `stem.safetensors`, or `stem-00001-of-0000N.safetensors` with `stem.safetensors.index.json` when
// the tensors need more than one shard. Bytes are appended in the promised order; the index appears last.
class ShardedWriter {
 public:
  struct Options {
    std::filesystem::path folder;
    std::string stem = "model";
    int64_t max_shard_bytes = 5'000'000'000;
  };
  // Throws as SafetensorsWriter does; a tensor larger than a shard gets a shard of its own.
  ShardedWriter(Options options, std::vector<TensorSpec> specs);
  ~ShardedWriter();

  void append(std::span<const std::byte> bytes);
  void finish();
  int shards() const { return static_cast<int>(first_.size()); }

 private:
  std::string shard_name(int shard) const;
  std::span<const TensorSpec> shard_specs(int shard) const;
  void open_shard();

  Options options_;
  std::vector<TensorSpec> specs_;
  std::vector<int64_t> first_;  // index of each shard's first promise
  int next_ = 0;                // shard to be opened next
  std::unique_ptr<SafetensorsWriter> current_;
};

}  // namespace atelier::weights
