#include <cmath>

#include "models/sdxl/config.h"

namespace atelier::models {
namespace {

// Multiply-adds of a pixel of the block's own picture.
BlockWork work_of(const UNetConfig& c, const UNetBlock& b) {
  const auto in = static_cast<double>(b.in), out = static_cast<double>(b.out);
  const auto inner = static_cast<double>(c.levels[static_cast<size_t>(b.level)].heads.size());
  const auto transformers = static_cast<double>(b.transformers);
  BlockWork work{.per_token = 9 * (in + out) * out + (b.in != b.out ? in * out : 0), .width = out};
  work.sums = 3 * static_cast<int>(b.transformers);
  work.convolutions = 2;
  if (b.kind == UNetBlock::kMiddle && b.transformers > 0) {
    work.per_token += 18 * out * out;
    work.convolutions += 2;
  }
  if (b.transformers > 0) {
    // Self attention, queries and output of the cross attention, a gated MLP of four widths.
    work.per_token += 2 * out * inner + transformers * 18 * inner * inner;
    work.self_width = work.cross_width = transformers * inner;
  }
  if (b.resamples) {
    work.per_token += 9 * out * out * (b.kind == UNetBlock::kDown ? 0.25 : 4);
    ++work.convolutions;
  }
  work.share = std::pow(0.25, static_cast<double>(b.level));
  return work;
}

}  // namespace

ModelWork work_sdxl(const Json& config) {
  const UNetConfig c(config);
  ModelWork out{.head_size = static_cast<int>(c.levels.back().heads.unit)};
  for (const auto& block : blocks_of(c)) out.blocks.push_back(work_of(c, block));
  return out;
}

}  // namespace atelier::models
