// What is to be denoised, and who watches.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "media/image.h"
#include "models/family.h"
#include "nn/memory.h"
#include "nn/model.h"
#include "pipeline/activation_recorder.h"
#include "pipeline/masked_picture.h"
#include "pipeline/step_cache.h"
#include "sampling/guidance.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// A family's model on this rank.
struct Denoiser {
  // One of the denoisers that share the steps of a request.
  struct Expert {
    nn::Model* model = nullptr;
    nn::BlockMemory* memory = nullptr;  // of its weights
    std::string name = {};              // of its component
  };
  const models::Family& family;
  const Json& config;  // that the family's functions read
  std::vector<Expert> experts;
};

// Latents that a model of videos is given beside the noisy ones, [N, B, c], float, cut as they
// are; undefined: none.
struct GivenTokens {
  at::Tensor channels;         // behind the noisy latents' own, in every call
  at::Tensor control;          // for the model's control stream
  at::Tensor known, is_known;  // in place of noisy ones, in every call and at the end; where: [N, 1, 1], bool

  // The tokens of these ranges, one after another.
  GivenTokens held(std::span<const Range> ranges) const;
  // The latents, with those that are known in their place.
  at::Tensor with_known(const at::Tensor& latents) const;
};

// Whole tensors, equal on all ranks of a replica.
struct Denoise {
  std::vector<nn::Conditioning> branches;  // conditional, then unconditional if guided; of the same sizes
  sampling::Guidance cfg;                  // of two branches; a step may have a scale of its own
  models::Grid grid;
  const sampling::Sampler* sampler = nullptr;
  at::Tensor latents;                   // [N, B, c], float
  std::optional<MaskedPicture> masked;  // of a masked edit, whole
  GivenTokens given;
  StepCacheRule cache;
  // Of the steps that draw some, in rising order: [N, B, c], float. Never called if none does.
  std::function<at::Tensor(int step)> noise;
  bool has_small_previews = false;  // a dot for each latent, in place of what is decoded
  bool is_for_all = false;          // what comes out is wanted on every rank of the replica
};

// In place of what the pictures' generators draw: [B, ...], as the latents. Undefined, or beyond
// the list: drawn.
struct GivenNoise {
  at::Tensor initial;
  std::vector<at::Tensor> steps;  // of those that draw some, by their number
  at::Tensor picture;             // that the latents of a picture to begin with are sampled with
};

struct StepCallbacks {
  ActivationRecorder* probes = nullptr;
  // How many steps there will be, which the sampler decides; before the first.
  std::function<void(int steps)> on_plan = {};
  // Asked once before the first operation of a step on this rank, and with the number of steps before
  // what follows denoising. False ends the request there: all ranks of a replica must be told the
  // same. Empty: true.
  std::function<bool(int step)> may_begin = {};
  std::function<void(int step)> on_step = {};  // a step of this rank is queued
  // Whether what a step leaves is to be looked at. All ranks of a replica must be told the
  // same. Empty: never.
  std::function<bool(int step)> wants_preview = {};
  // On ranks of the first stage: whole latents after such a step, [N, B, c], float, without the noise that is
  // left in them. Where patches flow some of them are a
  // step behind.
  std::function<void(int step, const at::Tensor& latents)> on_latents = {};
  // On the replica's rank 0, which decodes them alone: what they look like.
  std::function<void(int step, std::vector<media::Artifact> pictures)> on_preview = {};
  // On the replica's rank 0, before the first step: what is done otherwise than asked for one request of the
  // batch, in a sentence.
  std::function<void(size_t request, const std::string& note)> on_note = {};
};

}  // namespace atelier::pipeline
