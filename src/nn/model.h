// What a denoiser is to the engine, which owns the block loop.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "nn/call_context.h"
#include "nn/state.h"

namespace atelier::nn {

// What the text encoders gave, for one branch.
struct Prompt {
  at::Tensor text;      // [text tokens held here, B, C], as the encoders left it
  at::Tensor pooled;    // [B, C]
  double guidance = 0;  // embedded by models that were distilled with it
};

class Model {
 public:
  virtual ~Model() = default;
  virtual int blocks() const = 0;  // of the whole model
  // Once per request and branch: everything that depends on timesteps and prompt only.
  virtual RequestContext begin(const CallContext&, const Prompt&, std::span<const float> timesteps) = 0;
  // On every stage: what follows from coordinates.
  virtual void enter(const CallContext&, State&) = 0;
  // First stage: latents [image tokens held, B, channels] -> State::x.
  virtual void embed(const CallContext&, State&, const at::Tensor& latents) = 0;
  // Only blocks this rank built.
  virtual void block(int i, const CallContext&, State&) = 0;
  // Last stage: -> prediction, [image tokens held, B, channels].
  virtual at::Tensor head(const CallContext&, State&) = 0;
};

}  // namespace atelier::nn
