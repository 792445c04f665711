// The shape of a text-to-image UNet (diffusers unet_2d_condition.py) as its config.json describes it, and the
// list of its blocks.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/model_facts.h"
#include "base/partition.h"

namespace atelier::models {

// Pictures of one size: a block on the way down and one on the way up.
struct UNetLevel {
  int64_t channels = 0;
  Dim heads;
  // Transformer blocks behind each resnet; 0: no attention there. One resnet more on the way up.
  std::vector<int64_t> down, up;
};

struct UNetConfig {
  std::vector<UNetLevel> levels;  // from the size of the latents down
  int64_t latent_channels = 4, sample_size = 128;
  int64_t text_width = 1280;  // of the states that are attended to
  int64_t groups = 32;
  double eps = 1e-5;         // of the resnets' group norms
  int64_t time_width = 0;    // of the embedding
  int64_t size_width = 256;  // sinusoid of each of the six numbers of micro-conditioning
  int64_t added_width = 0;   // pooled text and the six sinusoids
  int64_t kernel_in = 3, kernel_out = 3;
  bool projects_tokens = false;  // linears around the transformer blocks; otherwise 1x1 convolutions
  bool cosines_first = true, is_centred = false;
  // Of the smallest pictures: a resnet, and with attention these blocks and another resnet.
  bool has_middle = true;
  int64_t middle_blocks = 1;
  double middle_scale = 1;

  // Throws Error(kCheckpoint) naming a value that this build does not have.
  explicit UNetConfig(const Json& json);
  int64_t channels() const { return levels.front().channels; }
  // Rows of the latents that no part of a picture splits: a row of the smallest picture.
  int64_t rows_together() const { return int64_t{1} << (levels.size() - 1); }
  int64_t fewest_heads() const;  // of all attentions
};

// A resnet with the transformer behind it: what the block loop runs at a time.
struct UNetBlock {
  enum BlockKind { kDown, kMiddle, kUp } kind = kDown;
  int64_t level = 0;         // of the picture that it works on
  int64_t index = 0;         // in down_blocks or up_blocks
  int64_t layer = 0;         // within it
  int64_t in = 0, out = 0;   // channels; in: with the skip's
  int64_t transformers = 0;  // 0: no attention
  bool resamples = false;    // the last of its level: halves or doubles the picture afterwards
  std::string path() const;  // "down_blocks.1", "mid_block"
};

// In the order in which they run.
std::vector<UNetBlock> blocks_of(const UNetConfig& config);

// What each block multiplies, without counts. Throws Error(kCheckpoint).
ModelWork work_sdxl(const Json& config);

}  // namespace atelier::models
