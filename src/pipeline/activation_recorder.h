// Puts named intermediate results together again from the pieces that the ranks of a run hold.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "nn/call_context.h"

namespace atelier::pipeline {

struct Probe {
  std::string name;
  int branch = 0;    // of guidance that ran it; 0 for what belongs to none
  at::Tensor value;  // batch first; without one where a table has none
};

// Shared by the ranks of one process. Results are on the CPU, in float (integers stay).
class ActivationRecorder {
 public:
  // Not cut over ranks: batch first.
  void whole(const std::string& name, const at::Tensor& value, int branch = 0);
  // Tokens [at.begin, at.end()) of a tensor with `total` of them, tokens first.
  void piece(const std::string& name, int branch, int64_t total, Range at, const at::Tensor& rows);
  // Complete tensors only, in order of arrival.
  std::vector<Probe> probes() const;
  // Those of branch 0 as they were recorded: tokens first.
  std::map<std::string, at::Tensor> tensors() const;

 private:
  using NameAndBranch = std::pair<std::string, int>;  // name, branch
  struct Recording {
    at::Tensor value;
    std::vector<char> have;  // per token; empty: whole
    bool is_complete() const;
  };
  mutable std::mutex mutex_;
  std::map<NameAndBranch, Recording> entries_;
  std::vector<NameAndBranch> order_;
};

// One rank's probes: each call tells which rows they are.
class RankRecorder : public nn::Recorder {
 public:
  // recorder may be null if nothing is ever recorded
  RankRecorder(ActivationRecorder* recorder, std::string prefix)
      : recorder_(recorder), prefix_(std::move(prefix)) {}
  void record(const nn::CallContext& call, std::string_view name, const at::Tensor& value,
              int stream) override;

 private:
  struct Tokens {
    int stream;
    int64_t before, total;  // tokens of earlier streams, and of all
  };
  void record_stream(const nn::CallContext& call, const std::string& name, const at::Tensor& rows,
                     const Tokens& which);
  ActivationRecorder* recorder_;
  std::string prefix_;
};

}  // namespace atelier::pipeline
