// What transformer/config.json of a Wan model says.
#pragma once
#include <cstdint>
#include <vector>

#include "base/json.h"
#include "base/model_facts.h"
#include "base/partition.h"

namespace atelier::models {

struct WanConfig {
  Dim heads;
  int64_t width;  // heads times their width
  int64_t inner;  // of the MLP
  int64_t text_width;
  int64_t image_width;                  // of the image encoder's states; 0: reads none
  int64_t image_positions;              // rows of the table that is added to them; 0: none
  int64_t channels, out_channels;       // of the model's input and of its prediction
  int64_t control_channels;             // of VACE's control latents; 0: has no VACE blocks
  std::vector<int64_t> control_layers;  // blocks that a VACE block steers, rising from 0
  int64_t sinusoid;                     // width of the timestep's sinusoid
  int64_t most_positions;               // along each axis of the grid, in tokens
  int blocks;

  // Besides the noisy latents: frames that are given, and which they are.
  bool takes_frames() const { return channels > out_channels; }
  // Whether an adapter may add as many channels for the latents of a control video.
  bool can_be_steered() const { return channels == out_channels && control_layers.empty(); }

  // Throws Error(kCheckpoint) naming what is not supported.
  explicit WanConfig(const Json& json);
};

// What each block multiplies, without counts. Throws Error(kCheckpoint).
ModelWork work_wan(const Json& config);

}  // namespace atelier::models
