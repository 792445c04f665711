#include "models/sd3/config.h"

namespace atelier::models {

ModelWork work_sd3(const Json& config) {
  constexpr int64_t kClipTokens = 77;  // of a prompt, before those of T5
  const Sd3Config c(config);
  const auto w = static_cast<double>(c.width);
  const double attention = 4 * w * w, mlp = 8 * w * w;
  ModelWork out{.head_size = static_cast<int>(c.heads.unit), .more_text_tokens = kClipTokens};
  for (int i = 0; i < c.layers; ++i) {
    const double attentions = c.is_dual(i) ? 2 : 1;
    const bool is_last = i == c.layers - 1;  // there the text gives keys and values only
    out.blocks.push_back({.per_token = attentions * attention + mlp,
                          .per_text_token = is_last ? 2 * w * w : attention + mlp,
                          .width = w,
                          .self_width = attentions * w,
                          .sums = c.is_dual(i) ? 3 : 2,
                          .has_text_weights = true,
                          .modulation = ((c.is_dual(i) ? 9 : 6) + (is_last ? 2 : 6)) * w * w});
  }
  return out;
}

}  // namespace atelier::models
