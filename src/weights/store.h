// The weights of one component (a transformer, a text encoder, a VAE) under canonical names, read slice by
// slice into memory that the caller owns. Checkpoints and dummy weights look the same.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/partition.h"
#include "weights/names.h"

namespace atelier::weights {

// A tensor that somebody read.
struct ManifestEntry {
  std::string name;            // canonical
  std::vector<int64_t> shape;  // of the whole tensor
};

// The part of a file that holds one component: tensors whose names begin with `prefix`, which is taken off.
// Those below a prefix of `others` belong to other components.
struct Section {
  std::string prefix;
  std::vector<std::string> others;
  bool holds(std::string_view name) const;
};

// Names of a component's folder: what WeightStore::open reads there, and what could be weights and is not.
struct FolderFiles {
  std::vector<std::string> read;  // an index stands for its shards
  std::vector<std::string> beside;
};
// Throws Error(kCheckpoint) as WeightStore::open does, but opens no file of tensors.
FolderFiles files_of(const std::filesystem::path& folder);

// All member functions may be called from several threads, except adopt().
class WeightStore {
 public:
  // A .safetensors or .gguf file, an index.json, or a folder that holds one of them. In a folder an index
  // wins over single files, safetensors over GGUF, and diffusion_pytorch_model and model win over other
  // names. Reads headers and scales only. Throws Error(kCheckpoint): nothing there, pickle files only,
  // missing shards, an index that does not fit its shards, a broken header, weights in a format that is
  // not read here.
  static std::unique_ptr<WeightStore> open(const std::filesystem::path& path, const Section& section = {});

  // Random weights of whatever shape is asked: N(0, 1/fan_in) for tensors of two dimensions or more, ones for
  // 1-D ".weight" (norms), small numbers for other 1-D tensors. A tensor's values depend on the seed and its
  // canonical name only, so that every slice on every rank agrees (on one kind of device). has() is true for
  // all names but those that match a glob of `absent`.
  static std::unique_ptr<WeightStore> dummy(uint64_t seed, std::vector<std::string> absent = {});

  virtual ~WeightStore() = default;

  // Adds rules; those whose parts exist apply. Where two rules make the same canonical name, the one with all
  // its parts wins, then the earlier one. Tensors keep their own names as well.
  virtual void adopt(std::span<const NameRule> rules) = 0;

  virtual bool has(std::string_view name) const = 0;
  // Shape of the whole canonical tensor; empty if there is none. Dummy weights: known once asked for.
  virtual std::vector<int64_t> shape(std::string_view name) const = 0;

  // Reads `rows` (ranges of dim 0, in order, concatenated) and `cols` (of dim 1) of a canonical tensor whose
  // whole shape must equal `full`, into `out`: any device and type, contiguous, of the sliced size. Empty
  // rows or cols: all. A missing or misshapen tensor is noted for check() and `out` is zeroed. On CUDA the
  // work is queued on the current stream and the host does not wait for it. `out` on the meta device: only
  // checked.
  virtual void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full,
                         std::span<const Range> rows, std::span<const Range> cols) const = 0;

  // Names of the checkpoint, and of those that nobody has read.
  virtual std::vector<std::string> names() const = 0;
  virtual std::vector<std::string> unread() const = 0;

  // Throws one Error(kCheckpoint) that lists what read_into noted so far: missing and misshapen tensors with
  // the nearest names, and tensors that hold NaN or infinity. Waits for the device.
  virtual void check() const = 0;
  // The same, and tensors that nobody has read are an error too unless they match one of these globs.
  virtual void check(std::span<const std::string_view> ignorable) const = 0;

  // Every tensor that was read, in the order of the first reads.
  virtual std::vector<ManifestEntry> manifest() const = 0;

  // What the checkpoint calls itself, its files' names and the titles in them: variants of a model may differ
  // in nothing else.
  virtual std::string title() const;
};

}  // namespace atelier::weights
