// What is to be denoised, and who watches.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <vector>

#include "models/family.h"
#include "nn/memory.h"
#include "nn/model.h"
#include "pipeline/activation_recorder.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// A family's model on this rank.
struct Denoiser {
  // One of the denoisers that share the steps of a request.
  struct Expert {
    nn::Model* model = nullptr;
    nn::BlockMemory* memory = nullptr;  // of its weights
  };
  const models::Family& family;
  const Json& config;  // that the family's functions read
  std::vector<Expert> experts;
};

// Whole tensors, equal on all ranks of a replica.
struct Denoise {
  std::vector<nn::Conditioning> branches;  // conditional, then unconditional if guided; of the same sizes
  double cfg = 1;                          // of sampling::guide, with two branches
  models::Grid grid;
  const sampling::Sampler* sampler = nullptr;
  at::Tensor latents;  // [N, B, c], float
};

struct StepCallbacks {
  ActivationRecorder* probes = nullptr;
  // Asked before the first operation of each step of this rank, and with the number of steps before decoding.
  // After a no none of the operations from that step on is run, and Error(kInterrupted) is thrown; all ranks of
  // the replica must get the same answers.
  std::function<bool(int step)> may_begin;
  std::function<void(int step)> on_step;  // a step of this rank is queued
};

}  // namespace atelier::pipeline
