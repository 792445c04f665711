// What is to be denoised, and who watches.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/family.h"
#include "nn/memory.h"
#include "nn/model.h"
#include "pipeline/activation_recorder.h"
#include "pipeline/masked_picture.h"
#include "sampling/guidance.h"
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
  sampling::Guidance cfg;                  // of two branches; a step may have a scale of its own
  models::Grid grid;
  const sampling::Sampler* sampler = nullptr;
  at::Tensor latents;                   // [N, B, c], float
  std::optional<MaskedPicture> masked;  // of a masked edit, whole
  // Of the steps that draw some, in rising order: [N, B, c], float. Never called if none does.
  std::function<at::Tensor(int step)> noise;
};

// In place of what the pictures' generators draw: [B, ...], as the latents. Undefined, or beyond the list: drawn.
struct GivenNoise {
  at::Tensor initial;
  std::vector<at::Tensor> steps;  // of those that draw some, by their number
  at::Tensor picture;             // that the latents of a picture to begin with are sampled with
};

struct StepCallbacks {
  ActivationRecorder* probes = nullptr;
  // How many steps there will be, which the sampler decides; before the first.
  std::function<void(int steps)> on_plan = {};
  // Asked once before the first operation of a step on this rank, and with the number of steps before what
  // follows denoising. False ends the request there: all ranks of a replica must be told the same. Empty: true.
  std::function<bool(int step)> may_begin = {};
  std::function<void(int step)> on_step = {};  // a step of this rank is queued
  // On the replica's rank 0, before the first step: what is done otherwise than asked for one request of the batch,
  // in a sentence.
  std::function<void(size_t request, const std::string& note)> on_note = {};
};

}  // namespace atelier::pipeline
