// What tests of layers and models share: seeded tensors, a distance, planted weights, objects for one rank.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "nn/single_rank.h"
#include "weights/store.h"
#include "weights/tensors.h"

namespace atelier::nn {

// Standard normal numbers, the same in every run.
inline at::Tensor random(at::IntArrayRef sizes, at::ScalarType type = at::kDouble, uint64_t seed = 1) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kDouble)).to(type);
}

// max |a - b| / rms(b); infinite for other shapes, and for a NaN anywhere.
inline double distance(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  if (b.numel() == 0) return 0;
  const auto wide = b.to(at::kDouble);
  const double rms = std::sqrt(wide.square().mean().item<double>());
  const double most = (a.to(at::kDouble) - wide).abs().max().item<double>();
  return std::isfinite(most) ? most / std::max(rms, 1e-30) : INFINITY;
}

// The message of the Error that `act` throws, which must be of this kind; "no error" otherwise.
inline std::string error_of(Kind kind, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.kind() == kind ? e.what() : std::string("another kind: ") + e.what();
  }
  return "no error";
}

inline bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// Tensors of a test's own choice. Names it lacks read as zeros and are listed in `missing`.
class PlantedStore : public weights::WeightStore {
 public:
  explicit PlantedStore(std::map<std::string, at::Tensor> tensors) : tensors_(std::move(tensors)) {}

  void adopt(std::span<const weights::NameRule>) override {}
  bool has(std::string_view name) const override { return tensors_.count(std::string(name)) > 0; }
  std::vector<int64_t> shape(std::string_view name) const override {
    const auto found = tensors_.find(std::string(name));
    return found == tensors_.end() ? std::vector<int64_t>{} : found->second.sizes().vec();
  }
  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override {
    manifest_.push_back({std::string(name), full.vec()});
    const auto found = tensors_.find(std::string(name));
    if (found == tensors_.end() || found->second.sizes() != full) {
      missing.push_back(std::string(name));
      out.zero_();
      return;
    }
    auto value = found->second;
    if (!rows.empty()) value = value.index_select(0, indices(rows));
    if (!cols.empty()) value = value.index_select(1, indices(cols));
    out.copy_(value);
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const auto& [name, tensor] : tensors_) all.push_back(name);
    return all;
  }
  std::vector<std::string> unread() const override { return {}; }
  void check() const override {}
  void check(std::span<const std::string_view>) const override {}
  std::vector<weights::ManifestEntry> manifest() const override { return manifest_; }

  mutable std::vector<std::string> missing;

 private:
  static at::Tensor indices(std::span<const Range> ranges) {
    std::vector<at::Tensor> all;
    for (const Range& r : ranges) all.push_back(at::arange(r.begin, r.end(), at::TensorOptions(at::kLong)));
    return at::cat(all);
  }
  std::map<std::string, at::Tensor> tensors_;
  mutable std::vector<weights::ManifestEntry> manifest_;
};

}  // namespace atelier::nn
