// HunyuanDiT's configuration, the sizes it draws, and what its prompts become.
#pragma once
#include <cstdint>

#include "base/json.h"
#include "base/partition.h"
#include "models/family.h"

namespace atelier::models {

constexpr int64_t kPatch = 2;    // latents along a token's side
constexpr int64_t kSpatial = 8;  // pixels along a latent's side, which the positions count on

struct HunyuanConfig {
  Dim heads;
  int64_t width, channels;         // of the hidden state, of latents
  int64_t mlp_width;               // inside a block's feed-forward
  int64_t text_width, t5_width;    // of BERT's states and of T5's
  int64_t pooled_width;            // of T5's, pooled
  int64_t text_tokens, t5_tokens;  // of a prompt, always so many
  int64_t sample_size;             // latents along the side of a usual picture
  int blocks;
  bool has_sizes;  // up to v1.1: conditioned on a style and on the sizes of the picture

  // Throws Error(kCheckpoint).
  explicit HunyuanConfig(const Json& config);

  // Every block of the first half but its last skips to its mirror image in the second half.
  bool keeps_skip(int block) const { return block < blocks / 2 - 1; }
  bool takes_skip(int block) const { return block > blocks / 2; }

  static constexpr int64_t kPoolHeads = 8;
};

// Throws Error(kUsage) for sizes that are no whole tokens, Error(kCheckpoint) for a VAE with other latents.
Grid grid_hunyuan_dit(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t frames);

// States and masks of both encoders: embeds [B, tokens, C], mask [B, tokens], and the same with _2; sizes [B,
// 6] for models that want them.
nn::Conditioning condition_hunyuan_dit(Encoders& encoders, const PromptBatch& prompts);
// The same of a call. Sizes come with every call, also of models that take none. Throws Error(kUsage).
nn::Conditioning condition_of_hunyuan_call(const Json& config, NetworkInputs& inputs);

// What each block multiplies, without counts. Throws Error(kCheckpoint).
ModelWork work_hunyuan_dit(const Json& config);

}  // namespace atelier::models
