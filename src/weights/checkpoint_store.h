// A WeightStore over files of tensors. Inside of the room; made by WeightStore::open.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "weights/slices.h"
#include "weights/store.h"
#include "weights/tensor_file.h"
#include "base/thread_pool.h"
#include "weights/upload.h"

namespace atelier::weights {

struct Shards {
  std::filesystem::path place;  // as opened, for messages
  std::vector<std::unique_ptr<TensorFile>> files;
};

// Finds and opens the files; see WeightStore::open.
Shards open_shards(const std::filesystem::path& path);

class CheckpointStore : public WeightStore {
 public:
  // Throws Error(kCheckpoint) for a tensor that stands in two files and for formats that are not read here.
  CheckpointStore(Shards shards, const Section& section);

  void adopt(std::span<const NameRule> rules) override;
  bool has(std::string_view name) const override;
  std::vector<int64_t> shape(std::string_view name) const override;
  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override;
  std::vector<std::string> names() const override;
  std::vector<std::string> unread() const override;
  void check() const override;
  void check(std::span<const std::string_view> ignorable) const override;
  std::vector<ManifestEntry> manifest() const override;
  std::string title() const override;

 private:
  struct Problem {
    std::string name, asked, found;  // found: empty if the tensor is missing
  };
  // A tensor on the device whose extremes tell whether it holds NaN or infinity.
  struct Extremes {
    std::string name;
    at::Tensor low, high;  // [] each
  };

  void add(const TensorFile& file, const Section& section);
  const Canonical* find(std::string_view name) const;
  void adopt(const NameRule& rule);
  void note(Problem problem) const;
  void note_read(std::string_view name, at::IntArrayRef full, const Canonical& tensor) const;
  void read_transposed(const Canonical& tensor, at::Tensor& out, std::string_view name,
                       const Slice& slice) const;
  void read_on_cpu(std::span<const Band> bands, at::Tensor& out, std::string_view name) const;
  void read_on_cuda(std::span<const Band> bands, at::Tensor& out, std::string_view name) const;
  void collect_extremes() const;
  std::string describe(const Problem& problem) const;
  std::string spelling(std::string_view canonical) const;
  void throw_problems(const std::vector<std::string>& extra) const;

  Shards shards_;
  std::map<std::string, std::vector<float>, std::less<>>
      scales_;  // by the name of the tensor that they scale
  std::map<std::string, Canonical, std::less<>> raw_, canonical_;
  std::vector<NameRule> rules_;
  mutable ThreadPool pool_;

  mutable std::mutex mutex_;  // of everything below
  mutable std::set<std::string, std::less<>> read_;
  mutable std::vector<ManifestEntry> manifest_;
  mutable std::set<std::string, std::less<>> asked_names_;
  mutable std::vector<Problem> problems_;
  mutable std::set<std::string, std::less<>> unsound_;
  mutable std::vector<Extremes> extremes_;
  mutable std::mutex upload_mutex_;
  mutable std::map<int, std::unique_ptr<Uploader>> uploaders_;
};

}  // namespace atelier::weights
