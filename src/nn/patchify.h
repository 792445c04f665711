// Pictures to tokens and back. Token order is row-major everywhere; channel order within a token differs by
// model.
#pragma once
#include <ATen/core/Tensor.h>

namespace atelier::nn {

// [B, C, 2r, 2c] -> [r*c, B, 4C], channel = c*4 + dy*2 + dx (diffusers pipeline_flux.py _pack_latents).
at::Tensor pack_2x2(const at::Tensor& picture);
// Its inverse.
at::Tensor unpack_2x2(const at::Tensor& tokens, int64_t rows, int64_t cols);
// Videos [B, C, frames, 2r, 2c] -> [frames*r*c, B, 4C], frame by frame, channels as above.
at::Tensor pack_frames_2x2(const at::Tensor& video);
// Its inverse.
at::Tensor unpack_frames_2x2(const at::Tensor& tokens, int64_t frames, int64_t rows, int64_t cols);
// Coordinates (frame, row, column) of frames one after another, int64 [frames*rows*cols, 3].
at::Tensor frame_coordinates(int64_t frames, int64_t rows, int64_t cols);
// Coordinates (0, row, column) of a row-major grid, int64 [rows*cols, 3].
at::Tensor grid_coordinates(int64_t rows, int64_t cols);

}  // namespace atelier::nn
