// What is to be denoised, and who watches.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <stop_token>
#include <vector>

#include "models/family.h"
#include "pipeline/activation_recorder.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// Whole tensors, equal on all ranks of a replica.
struct Denoise {
  struct Branch {
    at::Tensor text;    // [T, B, C]
    at::Tensor pooled;  // [B, C]
  };
  std::vector<Branch> branches;  // conditional, then unconditional if guided
  double guidance = 0;           // embedded by the model
  double cfg = 1;                // of sampling::guide, with two branches
  models::Grid grid;
  const sampling::Sampler* sampler = nullptr;
  at::Tensor latents;  // [N, B, c], float
};

struct StepCallbacks {
  ActivationRecorder* probes = nullptr;
  std::function<void(int step)> on_step;  // a step of this rank is queued
  std::stop_token stop;                   // looked at before each step; throws Error(kInterrupted)
};

}  // namespace atelier::pipeline
