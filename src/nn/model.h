// What a denoiser is to the executor, which owns the block loop.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <span>
#include <string>
#include <vector>

#include "nn/call_context.h"
#include "nn/modulation_table.h"
#include "nn/state.h"

namespace atelier::nn {

// What one branch is conditioned on, as the encoders left it.
struct Conditioning {
  std::vector<at::Tensor> streams;  // joint token streams besides the latents, [T, B, C], cut by Layout
  std::map<std::string, at::Tensor> whole;  // pooled text, text for cross attention, sizes: never cut
  std::vector<int64_t> lengths;             // keys of the cross attention that count, per sample; empty: all
  double guidance = 0;                      // embedded by models that were distilled with it
};

class Model {
 public:
  virtual ~Model() = default;
  virtual int blocks() const = 0;  // of the whole model
  // Whose shift and scale the latents' norm in front of the first block's attention takes (nn/norm.h); size
  // 0: no table.
  virtual ModulationTable first_modulation() const { return {}; }
  // Once per request and branch: everything that depends on timesteps and prompt only. The streams of the
  // conditioning are the tokens held here.
  virtual RequestContext begin(const CallContext&, const Conditioning&, std::span<const float> timesteps) = 0;
  // After begin, once for each block this rank built, where begin made a prompt: keys and values of it.
  virtual void begin_block(int, const Conditioning&, RequestContext&) {}
  // On every stage: what follows from coordinates.
  virtual void enter(const CallContext&, State&) = 0;
  // First stage: latents [latent tokens held, B, channels] -> State::x.
  virtual void embed(const CallContext&, State&, const at::Tensor& latents) = 0;
  // Only blocks this rank built.
  virtual void block(int i, const CallContext&, State&) = 0;
  // Last stage: -> prediction, [latent tokens held, B, channels].
  virtual at::Tensor head(const CallContext&, State&) = 0;
};

}  // namespace atelier::nn
