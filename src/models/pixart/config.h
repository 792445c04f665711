// What transformer/config.json of a PixArt model says.
#pragma once
#include <cstdint>

#include "base/json.h"
#include "base/model_facts.h"
#include "base/partition.h"
#include "nn/builder.h"

namespace atelier::models {

struct PixArtConfig {
  Dim heads;
  int64_t width;          // heads times their width
  int64_t text_width;     // of the states that the cross attention reads
  int64_t caption_width;  // of what is projected to them; 0: the encoder's states are read as they are
  int64_t channels, out_channels;  // of latents and predictions
  int64_t base;                    // side of the grid, in tokens, that positions are stretched to
  double interpolation;
  int blocks;
  int sample;  // side of the latents that the model was made for
  nn::Bias bias;
  bool has_sizes;  // embeds the resolution and the aspect ratio beside the timestep (PixArt-alpha at 1024 px)

  // Throws Error(kCheckpoint) naming what is not supported.
  explicit PixArtConfig(const Json& json);
};

// What each block multiplies, without counts. Throws Error(kCheckpoint).
ModelWork work_pixart(const Json& config);

}  // namespace atelier::models
