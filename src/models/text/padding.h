// How encoders that see a whole text at once hide its padding from attention.
#pragma once
#include <ATen/core/Tensor.h>

namespace atelier::models {

// mask [B, T], 1 where a token counts -> [B, 1, 1, T], added to the scores: 0, or the lowest finite number of
// the type of `like`, so that a text of padding alone still gives numbers. Undefined where all tokens count.
at::Tensor hidden_padding(const at::Tensor& mask, const at::Tensor& like);

}  // namespace atelier::models
