// What the engine passes down through every call of a model: which branch, which patch, who holds what; and
// taps.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "nn/layout.h"

namespace atelier::nn {

// Receives named intermediate results. Tensors are this rank's tokens of `stream`, [n, ...]; kAll: of all
// streams one after another; kWhole: not cut by tokens, equal on every rank that has it.
class Recorder {
 public:
  static constexpr int kWhole = -1, kAll = -2;
  virtual ~Recorder() = default;
  virtual void record(std::string_view name, const at::Tensor& value, int stream) = 0;
};

struct Frame {
  int branch = 0;            // 0 conditional, 1 unconditional
  std::optional<int> patch;  // none: the whole sequence (warm-up)
  std::vector<Layout> streams;
  int seq_rank = 0;  // this rank's place in every layout
  Recorder* taps = nullptr;

  // Tokens of the given streams that sequence rank `rank` holds in this call.
  int64_t tokens(std::span<const int> which, int rank, std::optional<int> of_patch) const;
};

// Free when nobody listens.
inline void tap(const Frame& f, std::string_view name, const at::Tensor& value, int stream) {
  if (f.taps) f.taps->record(name, value, stream);
}

}  // namespace atelier::nn
