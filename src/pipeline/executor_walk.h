// What one request's run through the schedule keeps, and who listens to it.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pipeline/executor.h"

namespace atelier::pipeline {

struct Executor::Walk {
  const Denoise& work;
  const StepCallbacks& callbacks;
  RequestBuffers& buffers;
  std::span<const sampling::Step> steps;
  std::vector<std::unique_ptr<sampling::Sampler>> samplers;  // per patch
  std::vector<at::Tensor> moments;                           // per patch, see PatchMoments
  std::optional<MaskedPicture> masked;                       // the tokens held here
  at::Tensor before;  // the latents held here before the step that runs, where it is previewed
  std::vector<StepCacheDecisions> decisions;  // per pass; empty: no step cache
  StepCacheCounts counts;                     // of this rank's branches
  int begun = -1, ended = -1;                 // the last step that did
  int end;                                    // no step from here on begins

  Walk(const Denoise& d, const StepCallbacks& c, RequestBuffers& b)
      : work(d),
        callbacks(c),
        buffers(b),
        steps(d.sampler->steps()),
        moments(static_cast<size_t>(b.patches)),
        end(static_cast<int>(steps.size())) {
    for (int p = 0; p < b.patches; ++p) samplers.push_back(d.sampler->clone());
  }
  bool listens() const { return callbacks.probes; }
};

// The call reports to the recorder while this object lives.
class Executor::Listening {
 public:
  Listening(nn::CallContext& call, RankRecorder recorder) : call_(call), recorder_(std::move(recorder)) {
    call_.probes = &recorder_;
  }
  ~Listening() { call_.probes = nullptr; }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;

 private:
  nn::CallContext& call_;
  RankRecorder recorder_;
};

// Into the memory that is there where the shapes agree: recorded graphs read from it.
void put(at::Tensor& to, const at::Tensor& from);

}  // namespace atelier::pipeline
