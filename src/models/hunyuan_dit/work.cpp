#include "models/hunyuan_dit/config.h"

namespace atelier::models {

ModelWork work_hunyuan_dit(const Json& config) {
  const HunyuanConfig c(config);
  const auto w = static_cast<double>(c.width), mlp = static_cast<double>(c.mlp_width);
  ModelWork out{.head_size = static_cast<int>(c.heads.unit), .more_text_tokens = c.text_tokens};
  for (int i = 0; i < c.blocks; ++i) {
    const double skip = c.takes_skip(i) ? 2 * w * w : 0;
    out.blocks.push_back({.per_token = 6 * w * w + 2 * w * mlp + skip,
                          .width = w,
                          .self_width = w,
                          .cross_width = w,
                          .sums = 3,
                          .modulation = w * w});
  }
  return out;
}

}  // namespace atelier::models
