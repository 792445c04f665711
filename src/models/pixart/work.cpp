#include "models/pixart/config.h"

namespace atelier::models {

ModelWork work_pixart(const Json& config) {
  const PixArtConfig c(config);
  const auto w = static_cast<double>(c.width);
  ModelWork out{.head_size = static_cast<int>(c.heads.unit)};
  // Self attention, queries and output of the cross attention, an MLP of four widths.
  const BlockWork block{.per_token = 14 * w * w, .width = w, .self_width = w, .cross_width = w, .sums = 3};
  out.blocks.assign(static_cast<size_t>(c.blocks), block);
  return out;
}

}  // namespace atelier::models
