// What is to be denoised, and who watches.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <stop_token>
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
  std::function<bool(int step)> may_begin;  // asked before a step's first operation; false: no step from it on
  std::function<void(int step)> on_step;  // a step of this rank is queued
  std::stop_token stop;                   // looked at before each step; throws Error(kInterrupted)
};

}  // namespace atelier::pipeline
