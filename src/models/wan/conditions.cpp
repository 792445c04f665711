#include "models/wan/conditions.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "models/wan/config.h"

namespace atelier::models {
namespace {

constexpr int64_t kFramesTogether = 4;  // pixel frames of a latent frame; the first one has one

// 1 for every frame that is given, [B, 4, f, h, w]: a channel for each of the four pixel frames of a latent
// frame, the first pixel frame counted four times.
at::Tensor mask_of_given(const at::Tensor& like, int64_t frames, bool has_last) {
  auto mask = at::zeros({kFramesTogether - 1 + frames}, like.options());
  mask.narrow(0, 0, kFramesTogether).fill_(1);
  if (has_last) mask.narrow(0, mask.size(0) - 1, 1).fill_(1);
  const auto by_channel = mask.view({-1, kFramesTogether}).t();  // [4, f]
  return by_channel.unsqueeze(-1).unsqueeze(-1).unsqueeze(0).expand(
      {like.size(0), kFramesTogether, by_channel.size(1), like.size(3), like.size(4)});
}

// Grey between the frames that are given.
at::Tensor video_around(const ShownPictures& shown) {
  const auto& image = shown.image;
  const bool has_last = shown.last_image.defined();
  const int64_t between = shown.frames - (has_last ? 2 : 1);
  if (between < 0) throw Error(Kind::kUsage, "a video of one frame has no last frame besides its first");
  std::vector<at::Tensor> parts{image.unsqueeze(2)};
  parts.push_back(
      at::zeros({image.size(0), image.size(1), between, image.size(2), image.size(3)}, image.options()));
  if (has_last) parts.push_back(shown.last_image.unsqueeze(2));
  return at::cat(parts, 2);
}

}  // namespace

GivenLatents given_to_wan(const Json& pipeline, const Json& denoiser, const Grid&, const ShownPictures& shown,
                          const EncodeVideo& encode) {
  GivenLatents made;
  if (shown.control.defined()) made.channels = encode(shown.control);
  if (WanConfig(denoiser).takes_frames() && !shown.image.defined())
    throw Error(Kind::kUsage, "this model begins with a picture, and none was given: add image");
  if (!shown.image.defined()) return made;
  if (pipeline.value("expand_timesteps", false)) {
    made.known = encode(shown.image.unsqueeze(2));
    return made;
  }
  const auto latents = encode(video_around(shown));
  made.channels = at::cat({mask_of_given(latents, shown.frames, shown.last_image.defined()), latents}, 1);
  return made;
}

namespace {

// Every 8x8 pixels of the first channel, as channels: [B, 64, f, h, w]. Frames by the nearest one.
at::Tensor mask_channels(const at::Tensor& mask, int64_t latent_frames, int64_t rows, int64_t cols) {
  const int64_t batch = mask.size(0), frames = mask.size(2), cell = mask.size(3) / rows;
  const auto cells = mask.select(1, 0)
                         .reshape({batch, frames, rows, cell, cols, cell})
                         .permute({0, 3, 5, 1, 2, 4})
                         .flatten(1, 2);
  std::vector<int64_t> nearest;
  for (int64_t i = 0; i < latent_frames; ++i) {
    const double at =
        (static_cast<double>(i) + 0.5) * (static_cast<double>(frames) / static_cast<double>(latent_frames));
    nearest.push_back(std::min(static_cast<int64_t>(at), frames - 1));
  }
  return cells.index_select(2, at::tensor(nearest, at::TensorOptions(at::kLong).device(mask.device())));
}

at::Tensor grey(const ShownPictures& shown) {
  return at::zeros({shown.batch, 3, shown.frames, shown.height, shown.width}, at::TensorOptions(at::kFloat));
}

at::Tensor scales_of(const ShownPictures& shown, const WanConfig& c) {
  auto scales = shown.control_scales;
  const size_t hints = c.control_layers.size();
  if (scales.empty()) scales = {1};
  if (scales.size() == 1) scales.resize(hints, scales.front());
  if (scales.size() != hints)
    throw Error(Kind::kUsage,
                str("conditioning_scale has ", scales.size(), " numbers; this model takes one, or ", hints,
                    ", one for each of its control blocks"));
  return at::tensor(scales, at::TensorOptions(at::kFloat));
}

}  // namespace

GivenLatents given_to_vace(const Json&, const Json& denoiser, const Grid& grid, const ShownPictures& shown,
                           const EncodeVideo& encode) {
  const WanConfig c(denoiser);
  const auto& r = shown.references;
  const int64_t pictures = r.defined() ? r.size(1) : 0;
  // Nothing to follow: all of it is drawn anew.
  const auto control = shown.control.defined() ? shown.control : grey(shown);
  const auto mask = shown.mask.defined() ? shown.mask : at::ones_like(control);
  const auto anew = at::where(mask > 0.5, 1.0, 0.0).to(control.scalar_type());
  const auto kept = encode(control * (1 - anew)), drawn = encode(control * anew);
  auto latents = at::cat({kept, drawn}, 1);
  auto channels =
      mask_channels(mask, latents.size(2), latents.size(3), latents.size(4)).to(latents.options());
  for (int64_t i = 0; i < pictures; ++i) {  // the last one comes first
    const auto one = encode(r.select(1, i).unsqueeze(2));
    latents = at::cat({at::cat({one, at::zeros_like(one)}, 1), latents}, 2);
  }
  auto sizes = channels.sizes().vec();
  sizes[2] = pictures;
  channels = at::cat({at::zeros(sizes, channels.options()), channels}, 2);
  GivenLatents made{.control = at::cat({latents, channels}, 1), .control_scales = scales_of(shown, c)};
  if (made.control.size(1) != c.control_channels || made.control.size(2) != grid.latent_frames)
    throw Error(Kind::kCheckpoint,
                str("the control latents have ", made.control.size(1), " channels and ", made.control.size(2),
                    " frames, the model takes ", c.control_channels, " and ", grid.latent_frames));
  return made;
}

}  // namespace atelier::models
