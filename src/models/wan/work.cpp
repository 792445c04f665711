#include <algorithm>

#include "models/wan/config.h"

namespace atelier::models {

ModelWork work_wan(const Json& config) {
  const WanConfig c(config);
  const auto w = static_cast<double>(c.width), mlp = static_cast<double>(c.inner);
  ModelWork out{.head_size = static_cast<int>(c.heads.unit)};
  // Self attention, queries and output of the cross attention, an MLP.
  const BlockWork plain{
      .per_token = 6 * w * w + 2 * w * mlp, .width = w, .self_width = w, .cross_width = w, .sums = 3};
  for (int i = 0; i < c.blocks; ++i) {
    out.blocks.push_back(plain);
    if (!std::binary_search(c.control_layers.begin(), c.control_layers.end(), i)) continue;
    // A block of its own steers it, closed by one more linear.
    BlockWork& steered = out.blocks.back();
    steered.per_token += plain.per_token + w * w;
    steered.self_width *= 2, steered.cross_width *= 2, steered.sums *= 2;
  }
  return out;
}

}  // namespace atelier::models
