// One picture at several sizes, each half as high and wide as the one before: who holds which rows of each.
#pragma once
#include <ATen/core/Tensor.h>

#include "nn/call_context.h"

namespace atelier::nn {

// A call whose one stream are the pixels of the picture at one of its sizes.
struct PictureCall {
  CallContext call;
  int64_t rows = 0, cols = 0;  // held here; of the picture
};

// f: the one stream are the pixels of the largest picture; its unit is 2^(levels - 1) of their rows, so that
// every size is cut at whole rows. Sizes that are odd are halved upwards, as a convolution with stride 2 and
// a row of padding does.
PictureCall at_level(const CallContext& f, int64_t levels, int64_t level);

// [B, C, rows, cols] -> [rows * cols, B, C], and back.
at::Tensor pixels_of(const at::Tensor& picture);
at::Tensor picture_of(const at::Tensor& pixels, int64_t rows, int64_t cols);

// Reports a picture [B, C, rows, cols] as the pixels that are held here; free when nobody listens.
void probe_picture(const PictureCall& at, std::string_view name, const at::Tensor& picture);

}  // namespace atelier::nn
