// The configuration of Wan's autoencoders.
#pragma once
#include <vector>

#include "models/vae.h"

namespace atelier::models {

struct WanVaeConfig {
  int64_t encoder_width,
      decoder_width;                 // channels of the level nearest to the picture, before its multiplier
  std::vector<int64_t> multipliers;  // by level, from the picture
  std::vector<bool> halves_time;     // by level but the last: its resampling halves the frames, too
  std::vector<double> attention_scales;  // of the encoder's levels whose resnets are followed by attention
  int64_t layers;                        // resnets of a level of the encoder; the decoder has one more
  int64_t latent;
  bool is_residual;  // 2.2: levels have a way around without weights
  int64_t square;    // side of the squares of pixels that become channels (patch_size)
  // Pixels per latent row as the config says it: what the sizes of tiles are divided by.
  int64_t said_spatial;
  VaeFacts facts;

  explicit WanVaeConfig(const Json& json);  // throws Error(kCheckpoint)

  int64_t levels() const { return std::ssize(multipliers); }
  int64_t channels() const { return 3 * square * square; }  // of the folded picture
  bool is_last(int64_t level) const { return level + 1 == levels(); }
  // Whether the level's way from or to the next halves or doubles the frames; level: from the picture.
  bool changes_time(int64_t level) const {
    return !is_last(level) && halves_time[static_cast<size_t>(level)];
  }
};

}  // namespace atelier::models
