#include "models/flux/config.h"

namespace atelier::models {

ModelWork work_flux(const Json& config) {
  const FluxConfig c(config);
  const auto w = static_cast<double>(c.width);
  const double products = 12 * w * w;  // q, k, v and out, and an MLP of four widths
  ModelWork out{.head_size = static_cast<int>(c.heads.unit)};
  for (int i = 0; i < c.blocks(); ++i) {
    BlockWork block{.per_token = products, .per_text_token = products, .width = w, .self_width = w};
    if (i < c.doubles) {
      block.sums = 2, block.has_text_weights = true, block.modulation = 12 * w * w;
    } else {
      block.beside = 4 * w * w, block.modulation = 3 * w * w;
    }
    out.blocks.push_back(block);
  }
  return out;
}

}  // namespace atelier::models
