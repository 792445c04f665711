// Pictures for the tests of pictures.h, shared by the CPU twins and the CUDA kernels.
#pragma once
#include "kernels/pictures.h"
#include "kernels/test_support.h"

namespace atelier::kernels::testing {

// skew: by how many elements the buffers start late.
struct PictureCase {
  int64_t batch, rows, cols, channels, groups, skew = 0;
  int64_t positions() const { return rows * cols; }
  int64_t count() const { return batch * rows * cols * channels; }
};

inline const std::vector<PictureCase> kPictures = {
    {1, 1, 1, 8, 2},    {2, 3, 5, 24, 3},     {1, 9, 7, 48, 16},   {3, 4, 4, 7, 7},    {1, 2, 3, 64, 32, 1},
    {2, 16, 9, 320, 5}, {1, 40, 33, 128, 32}, {1, 5, 3, 2560, 32}, {2, 1, 70, 4104, 4}};

inline Pixels pixels(const PictureCase& c, const void* x, const void* bias) {
  return {x, bias, c.batch, c.positions(), c.channels};
}

}  // namespace atelier::kernels::testing
