#include "nn/patchify.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <array>

namespace atelier::nn {

at::Tensor pack_2x2(const at::Tensor& picture) {
  const int64_t b = picture.size(0), c = picture.size(1), r = picture.size(2) / 2, w = picture.size(3) / 2;
  return picture.reshape({b, c, r, 2, w, 2}).permute({2, 4, 0, 1, 3, 5}).reshape({r * w, b, 4 * c});
}

at::Tensor unpack_2x2(const at::Tensor& tokens, int64_t rows, int64_t cols) {
  const int64_t b = tokens.size(1), c = tokens.size(2) / 4;
  return tokens.reshape({rows, cols, b, c, 2, 2})
      .permute({2, 3, 0, 4, 1, 5})
      .reshape({b, c, 2 * rows, 2 * cols});
}

at::Tensor grid_coordinates(int64_t rows, int64_t cols) {
  const auto row = at::arange(rows).unsqueeze(1).expand({rows, cols}).reshape(-1);
  const auto col = at::arange(cols).unsqueeze(0).expand({rows, cols}).reshape(-1);
  return at::stack({at::zeros_like(row), row, col}, 1);
}

at::Tensor pack_frames_2x2(const at::Tensor& video) {
  const int64_t b = video.size(0), c = video.size(1), f = video.size(2), r = video.size(3) / 2,
                w = video.size(4) / 2;
  return video.reshape({b, c, f, r, 2, w, 2}).permute({2, 3, 5, 0, 1, 4, 6}).reshape({f * r * w, b, 4 * c});
}

at::Tensor unpack_frames_2x2(const at::Tensor& tokens, int64_t frames, int64_t rows, int64_t cols) {
  const int64_t b = tokens.size(1), c = tokens.size(2) / 4;
  return tokens.reshape({frames, rows, cols, b, c, 2, 2})
      .permute({3, 4, 0, 1, 5, 2, 6})
      .reshape({b, c, frames, 2 * rows, 2 * cols});
}

at::Tensor frame_coordinates(int64_t frames, int64_t rows, int64_t cols) {
  const std::array<int64_t, 3> grid{frames, rows, cols};
  const auto axis = [&](int64_t n, at::IntArrayRef along) {
    return at::arange(n).view(along).expand(grid).reshape(-1);
  };
  return at::stack({axis(frames, {-1, 1, 1}), axis(rows, {1, -1, 1}), axis(cols, {1, 1, -1})}, 1);
}

}  // namespace atelier::nn
