#include "pipeline/masked_picture.h"

#include <ATen/ops/where.h>

#include "pipeline/buffers.h"

namespace atelier::pipeline {

MaskedPicture MaskedPicture::held(std::span<const Range> ranges) const {
  return {rows_of(latents, ranges), rows_of(noise, ranges), rows_of(drawn, ranges)};
}

void MaskedPicture::put_back_(const at::Tensor& x, Range rows, const sampling::Sampler& sampler,
                              int step) const {
  const auto part = [&](const at::Tensor& t) { return t.narrow(0, rows.begin, rows.size); };
  const bool is_last = step + 1 == static_cast<int>(sampler.steps().size());
  const auto stays = is_last ? part(latents) : sampler.add_noise(part(latents), part(noise), step + 1);
  x.copy_(at::where(part(drawn), x, stays));
}

}  // namespace atelier::pipeline
