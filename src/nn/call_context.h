// What the engine passes down through every call of a model: which branch, which patch, who holds what; and
// probes.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "nn/layout.h"

namespace atelier::nn {

struct CallContext;

// Receives named intermediate results. Tensors are this rank's tokens of `stream` of the call, [n, ...];
// kAll: of all streams one after another; kWhole: not cut by tokens, equal on every rank that has it.
class Recorder {
 public:
  static constexpr int kWhole = -1, kAll = -2;
  virtual ~Recorder() = default;
  virtual void record(const CallContext& call, std::string_view name, const at::Tensor& value,
                      int stream) = 0;
};

struct CallContext {
  int branch = 0;            // 0 conditional, 1 unconditional
  std::optional<int> patch;  // none: the whole sequence (warm-up)
  std::vector<Layout> streams;
  int seq_rank = 0;  // this rank's place in every layout
  int buffers = 0;  // of which kept shape of request: what strategies keep from step to step is kept for each
  Recorder* probes = nullptr;

  // Tokens of the given streams that sequence rank `rank` holds in this call.
  int64_t tokens(std::span<const int> which, int rank, std::optional<int> of_patch) const;
  // Are these streams not cut over ranks, as those of a picture that one rank codes alone?
  bool is_on_one_rank(std::span<const int> which) const;
};

// Free when nobody listens.
inline void probe(const CallContext& f, std::string_view name, const at::Tensor& value, int stream) {
  if (f.probes) f.probes->record(f, name, value, stream);
}

}  // namespace atelier::nn
