// Puts named intermediate results together again from the pieces that the ranks of a run hold.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "nn/call_context.h"

namespace atelier::pipeline {

// Shared by the ranks of one process. Results are on the CPU, in float (integers stay); tokens first.
class ActivationRecorder {
 public:
  void whole(const std::string& name, const at::Tensor& value);
  // Rows [at.begin, at.end()) of a tensor with `total` rows.
  void piece(const std::string& name, int64_t total, Range at, const at::Tensor& rows);
  // Complete tensors only.
  std::map<std::string, at::Tensor> tensors() const;
  std::vector<std::string> names() const;  // in order of arrival

 private:
  struct Recording {
    at::Tensor value;
    std::vector<char> have;  // per row; empty: whole
  };
  mutable std::mutex mutex_;
  std::map<std::string, Recording> entries_;
  std::vector<std::string> order_;
};

// One rank's probes during one call of the model: knows the frame, hence which rows they are.
class RankRecorder : public nn::Recorder {
 public:
  // collector may be null if nothing is ever recorded
  RankRecorder(ActivationRecorder* recorder, const nn::CallContext& call, std::string prefix)
      : recorder_(recorder), call_(call), prefix_(std::move(prefix)) {}
  void record(std::string_view name, const at::Tensor& value, int stream) override;

 private:
  void record_stream(const std::string& name, const at::Tensor& rows, int stream, int64_t before,
                     int64_t total);
  ActivationRecorder* recorder_;
  const nn::CallContext& call_;
  std::string prefix_;
};

}  // namespace atelier::pipeline
