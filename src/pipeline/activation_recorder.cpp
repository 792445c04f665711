#include "pipeline/activation_recorder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/check.h"

namespace atelier::pipeline {
namespace {

at::Tensor on_cpu(const at::Tensor& t) {
  return (t.is_floating_point() ? t.to(at::kCPU, at::kFloat) : t.to(at::kCPU)).clone();
}

}  // namespace

bool ActivationRecorder::Recording::is_complete() const {
  return std::all_of(have.begin(), have.end(), [](char c) { return c != 0; });
}

void ActivationRecorder::whole(const std::string& name, const at::Tensor& value, int branch) {
  {
    const std::scoped_lock lock(mutex_);
    if (entries_.count({name, branch})) return;
  }
  // Without the lock: the copy waits for this rank's device, which may wait for a rank that waits for the
  // lock.
  const auto here = on_cpu(value);
  const std::scoped_lock lock(mutex_);
  if (entries_.emplace(NameAndBranch{name, branch}, Recording{here, {}}).second)
    order_.emplace_back(name, branch);
}

void ActivationRecorder::piece(const std::string& name, int branch, int64_t total, Range at,
                               const at::Tensor& rows) {
  const auto here = on_cpu(rows);
  const std::scoped_lock lock(mutex_);
  auto& e = entries_[{name, branch}];
  if (!e.value.defined()) {
    auto sizes = here.sizes().vec();
    sizes[0] = total;
    e.value = at::empty(sizes, here.options());
    e.have.assign(static_cast<size_t>(total), 0);
    order_.emplace_back(name, branch);
  }
  ENSURE(e.value.size(0) == total && here.size(0) == at.size);
  e.value.narrow(0, at.begin, at.size).copy_(here);
  std::fill_n(e.have.begin() + at.begin, at.size, 1);
}

std::vector<Probe> ActivationRecorder::probes() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Probe> all;
  for (const auto& key : order_) {
    const auto& e = entries_.at(key);
    if (!e.is_complete()) continue;
    const bool has_batch_second = !e.have.empty() && e.value.dim() > 2;
    all.push_back({key.first, key.second, has_batch_second ? e.value.transpose(0, 1).contiguous() : e.value});
  }
  return all;
}

std::map<std::string, at::Tensor> ActivationRecorder::tensors() const {
  const std::scoped_lock lock(mutex_);
  std::map<std::string, at::Tensor> complete;
  for (const auto& [key, e] : entries_) {
    if (key.second == 0 && e.is_complete()) complete[key.first] = e.value;
  }
  return complete;
}

void RankRecorder::record(const nn::CallContext& call, std::string_view name, const at::Tensor& value,
                          int stream) {
  const std::string full = prefix_ + std::string(name);
  if (stream == kWhole) return recorder_->whole(full, value, call.branch);
  if (stream != kAll) {
    const int64_t total = call.streams[static_cast<size_t>(stream)].patches.total;
    return record_stream(call, full, value, {stream, 0, total});
  }
  int64_t total = 0, row = 0, before = 0;
  for (const auto& l : call.streams) total += l.patches.total;
  for (size_t i = 0; i < call.streams.size(); ++i) {
    const int64_t n = call.streams[i].count(call.seq_rank, call.patch);
    record_stream(call, full, value.narrow(0, row, n), {static_cast<int>(i), before, total});
    row += n;
    before += call.streams[i].patches.total;
  }
}

void RankRecorder::record_stream(const nn::CallContext& call, const std::string& name, const at::Tensor& rows,
                                 const Tokens& which) {
  int64_t row = 0;
  for (const Range& r : call.streams[static_cast<size_t>(which.stream)].held(call.seq_rank, call.patch)) {
    recorder_->piece(name, call.branch, which.total, {which.before + r.begin, r.size},
                     rows.narrow(0, row, r.size));
    row += r.size;
  }
}

}  // namespace atelier::pipeline
