// From pictures to tensors.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "media/image.h"

namespace atelier::pipeline {

// [height, width, 3] uint8, RGB; a copy.
inline at::Tensor pixels_of(const media::Image& image) {
  auto t = at::empty({image.height, image.width, 3}, at::TensorOptions(at::kByte));
  std::memcpy(t.data_ptr(), image.rgb.data(), image.rgb.size());
  return t;
}

}  // namespace atelier::pipeline
