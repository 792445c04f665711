// Random weights that look like a checkpoint. A tensor is made of blocks of rows, each from a generator of
// its own, so that a slice costs only the blocks it touches and threads can share the work.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "base/check.h"
#include "base/text.h"
#include "weights/convert.h"
#include "weights/slices.h"
#include "weights/store.h"
#include "base/thread_pool.h"

namespace atelier::weights {
namespace {

constexpr int64_t kBlockElements = 4 << 20;  // at most, unless one row is longer
constexpr double kBiasDeviation = 0.02;

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t seed_of(uint64_t seed, std::string_view name, int64_t block) {
  uint64_t h = mix(seed);
  for (const char c : name) h = mix(h ^ static_cast<unsigned char>(c));
  return mix(h ^ static_cast<uint64_t>(block));
}

// What a tensor is filled with.
struct Recipe {
  int64_t rows = 1, width = 1, inner = 1;
  bool is_ones = false;
  double deviation = kBiasDeviation;
  Recipe(std::string_view name, at::IntArrayRef full) {
    if (!full.empty()) rows = full[0];
    for (size_t i = 1; i < full.size(); ++i) (i > 1 ? inner : width) *= full[i];
    width *= inner;
    is_ones = full.empty() || (full.size() == 1 && name.ends_with(".weight"));
    if (full.size() > 1) deviation = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(width, 1)));
  }
  int64_t block_rows() const { return std::max<int64_t>(1, kBlockElements / std::max<int64_t>(1, width)); }
};

// Rows of one block that go to one place of the slice.
struct Task {
  int64_t block, first, rows, to;  // first: within the block; to: row of the slice
};

std::vector<Task> tasks_of(const Recipe& recipe, std::span<const Range> rows) {
  const Range all{0, recipe.rows};
  std::vector<Task> tasks;
  int64_t to = 0;
  const int64_t per_block = recipe.block_rows();
  for (const Range wanted : rows.empty() ? std::span(&all, 1) : rows) {
    for (int64_t row = wanted.begin; row < wanted.end();) {
      const int64_t block = row / per_block, n = std::min(wanted.end(), (block + 1) * per_block) - row;
      tasks.push_back({block, row - block * per_block, n, to});
      row += n;
      to += n;
    }
  }
  return tasks;
}

at::Generator generator_on(c10::Device device, uint64_t seed) {
  at::Generator g;
  if (device.is_cpu()) {
    g = at::detail::createCPUGenerator(seed);
  } else {
    g = at::detail::getCUDAHooks().getNewGenerator(device.index());
    g.set_current_seed(seed);
  }
  return g;
}

class DummyStore : public WeightStore {
 public:
  DummyStore(uint64_t seed, std::vector<std::string> absent)
      : seed_(seed), absent_(std::move(absent)), pool_(default_workers()) {}

  void adopt(std::span<const NameRule>) override {}

  bool has(std::string_view name) const override {
    return std::none_of(absent_.begin(), absent_.end(), [&](auto& glob) { return glob_matches(glob, name); });
  }

  std::vector<int64_t> shape(std::string_view name) const override {
    const std::lock_guard lock(mutex_);
    const auto at = shapes_.find(name);
    return at == shapes_.end() ? std::vector<int64_t>() : at->second;
  }

  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override {
    const c10::InferenceMode no_grad;
    ENSURE(out.is_contiguous() && out.numel() == count_elements({full.data(), full.size()}, {rows, cols}));
    note(name, full);
    if (out.is_meta() || out.numel() == 0) return;
    if (is_added(name)) {
      out.zero_();
      return;
    }
    const Recipe recipe(name, full);
    if (recipe.is_ones) {
      out.fill_(1);
      return;
    }
    const Range all{0, recipe.width / std::max<int64_t>(1, recipe.inner)};
    const auto wanted = cols.empty() ? std::span(&all, 1) : cols;
    const auto tasks = tasks_of(recipe, rows);
    if (out.is_cpu()) {
      const auto n = static_cast<int64_t>(tasks.size());
      pool_.run(n, [&](int64_t i) { fill_on_cpu(out, name, recipe, tasks[static_cast<size_t>(i)], wanted); });
    } else {
      for (const auto& task : tasks) fill_on_device(out, name, recipe, task, wanted);
    }
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const auto& a : manifest()) out.push_back(a.name);
    return out;
  }
  std::vector<std::string> unread() const override { return {}; }
  void check() const override {}
  void check(std::span<const std::string_view>) const override {}

  std::vector<ManifestEntry> manifest() const override {
    const std::lock_guard lock(mutex_);
    return manifest_;
  }

 private:
  void note(std::string_view name, at::IntArrayRef full) const {
    const std::lock_guard lock(mutex_);
    const auto [at, fresh] = shapes_.try_emplace(std::string(name), full.vec());
    ENSURE(at->second == full.vec());
    if (fresh) manifest_.push_back({std::string(name), full.vec()});
  }

  // The whole block, float32, [rows, width].
  at::Tensor block(std::string_view name, const Recipe& recipe, int64_t index, c10::Device device) const {
    const int64_t rows = std::min(recipe.block_rows(), recipe.rows - index * recipe.block_rows());
    at::Tensor values = at::empty({rows, recipe.width}, at::TensorOptions(at::kFloat).device(device));
    return values.normal_(0, recipe.deviation, generator_on(device, seed_of(seed_, name, index)));
  }

  void fill_on_cpu(at::Tensor& out, std::string_view name, const Recipe& recipe, const Task& task,
                   std::span<const Range> cols) const {
    const c10::InferenceMode no_grad;
    const at::Tensor values = block(name, recipe, task.block, c10::kCPU);
    const Elements from{values.data_ptr(), at::kFloat}, to{out.data_ptr(), out.scalar_type()};
    int64_t width = 0;
    for (const Range c : cols) width += c.size * recipe.inner;
    for (int64_t row = 0; row < task.rows; ++row) {
      int64_t column = 0;
      for (const Range c : cols) {
        const int64_t n = c.size * recipe.inner;
        convert({to.at((task.to + row) * width + column), to.dtype},
                {from.at((task.first + row) * recipe.width + c.begin * recipe.inner), from.dtype}, n);
        column += n;
      }
    }
  }

  void fill_on_device(at::Tensor& out, std::string_view name, const Recipe& recipe, const Task& task,
                      std::span<const Range> cols) const {
    const at::Tensor values = block(name, recipe, task.block, out.device()).narrow(0, task.first, task.rows);
    int64_t width = 0, column = 0;
    for (const Range c : cols) width += c.size * recipe.inner;
    const at::Tensor to = out.view({-1, width}).narrow(0, task.to, task.rows);
    for (const Range c : cols) {
      const int64_t n = c.size * recipe.inner;
      to.narrow(1, column, n).copy_(values.narrow(1, c.begin * recipe.inner, n));
      column += n;
    }
  }

  uint64_t seed_;
  std::vector<std::string> absent_;
  mutable ThreadPool pool_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::vector<int64_t>, std::less<>> shapes_;
  mutable std::vector<ManifestEntry> manifest_;
};

}  // namespace

std::unique_ptr<WeightStore> WeightStore::dummy(uint64_t seed, std::vector<std::string> absent) {
  return std::make_unique<DummyStore>(seed, std::move(absent));
}

}  // namespace atelier::weights
