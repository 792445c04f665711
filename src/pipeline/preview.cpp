#include "pipeline/preview.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>

namespace atelier::pipeline {
namespace {

constexpr int64_t kCells = 16;  // latent rows and columns of the picture of known colours

// [1, 3, H, W] in [-1, 1]: slow waves of other lengths in each colour, so that all combinations come.
at::Tensor known_colours(int64_t side) {
  const auto at = at::arange(side, at::TensorOptions(at::kDouble)) / static_cast<double>(side);
  const auto rows = at.unsqueeze(1), cols = at.unsqueeze(0);
  return at::stack({at::sin(9 * rows + 4 * cols), at::sin(5 * rows - 11 * cols + 1),
                    at::sin(13 * rows + 7 * cols + 2)})
      .unsqueeze(0)
      .to(at::kFloat);
}

// [.., C] -> [.., C + 1]
at::Tensor with_ones(const at::Tensor& values) {
  auto sizes = values.sizes().vec();
  sizes.back() = 1;
  return at::cat({values, at::ones(sizes, values.options())}, -1);
}

}  // namespace

LatentPreview::LatentPreview(const ImageStage& images, const models::VaeFacts& facts)
    : temporal_(facts.temporal) {
  auto picture = known_colours(kCells * facts.spatial);
  auto colours = picture.unflatten(2, {kCells, facts.spatial})
                     .unflatten(4, {kCells, facts.spatial})
                     .mean(at::IntArrayRef({3, 5}));
  if (facts.has_frames) picture = picture.unsqueeze(2);
  auto latents = images.encode_mode(picture, CodedBy::kThisRank).to(at::kCPU).to(at::kDouble);
  if (facts.has_frames) latents = latents.select(2, 0);
  const auto a = with_ones(latents[0].flatten(1).t());
  const auto wanted = colours[0].flatten(1).t().to(at::kDouble);
  // a little of each channel's own square keeps channels without colour from growing
  const auto square = a.t().matmul(a) + 1e-3 * at::eye(a.size(1), a.options());
  factors_ = at::linalg_solve(square, a.t().matmul(wanted)).to(at::kFloat);
}

std::vector<media::Artifact> LatentPreview::draw(const at::Tensor& latents, double fps) const {
  const auto channels_last = latents.to(at::kCPU).to(at::kFloat).movedim(1, -1);
  const auto colours = with_ones(channels_last).matmul(factors_);
  const auto images = (colours * 0.5 + 0.5).clamp(0, 1).movedim(-1, 1);
  return to_artifacts(images, fps / static_cast<double>(temporal_));
}

}  // namespace atelier::pipeline
