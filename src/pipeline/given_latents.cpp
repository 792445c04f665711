#include "pipeline/given_latents.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "media/resample.h"
#include "pipeline/pixels.h"

namespace atelier::pipeline {
namespace {

// Bytes [..., H, W, 3] -> [..., 3, H, W] in [-1, 1].
at::Tensor scaled(const at::Tensor& bytes) {
  if (!bytes.defined()) return {};
  return bytes.movedim(-1, -3).to(at::kFloat) / 255 * 2 - 1;
}

// As large as fits, in the middle of a white canvas [3, H, W]. Sides are first cut to whole cells. Upstream:
// diffusers pipeline_wan_vace.py preprocess_conditions.
at::Tensor on_canvas(const media::Image& picture, int64_t height, int64_t width, int64_t cell) {
  const auto whole = [&](int side) { return static_cast<int>(std::max(side / cell, int64_t{1}) * cell); };
  const auto pixels = scaled(pixels_of(media::resized(picture, whole(picture.width), whole(picture.height))));
  const auto h = static_cast<double>(pixels.size(1)), w = static_cast<double>(pixels.size(2));
  const double scale = std::min(static_cast<double>(height) / h, static_cast<double>(width) / w);
  const auto rows = std::max(static_cast<int64_t>(h * scale), int64_t{1}),
             cols = std::max(static_cast<int64_t>(w * scale), int64_t{1});
  const auto fitted = at::upsample_bilinear2d(pixels.unsqueeze(0), {rows, cols}, false).squeeze(0);
  auto canvas = at::ones({3, height, width}, fitted.options());
  canvas.narrow(1, (height - rows) / 2, rows).narrow(2, (width - cols) / 2, cols).copy_(fitted);
  return canvas;
}

using Shown = models::ShownPictures;
using Given = models::GivenLatents;
constexpr std::pair<const char*, at::Tensor Shown::*> kShown[] = {{"image", &Shown::image},
                                                                  {"last_image", &Shown::last_image},
                                                                  {"control", &Shown::control},
                                                                  {"mask", &Shown::mask},
                                                                  {"references", &Shown::references}};
constexpr std::pair<const char*, at::Tensor Given::*> kGiven[] = {{"channels", &Given::channels},
                                                                  {"control", &Given::control},
                                                                  {"control_scales", &Given::control_scales},
                                                                  {"known", &Given::known}};

}  // namespace

models::ShownPictures shown_by(request::Requests batch) {
  const auto& r = batch.front();
  return {.batch = std::ssize(batch),
          .frames = r.num_frames.value_or(1),
          .height = *r.height,
          .width = *r.width,
          .control_scales = request::conditioning_scales(r)};
}

models::ShownPictures shown_pictures(request::Requests batch, const ShownInputs& files, int64_t cell) {
  auto shown = shown_by(batch);
  shown.image = scaled(files.image);
  shown.last_image = scaled(files.last_image);
  if (files.control.defined()) shown.control = scaled(files.control).transpose(1, 2).contiguous();
  if (files.mask.defined()) shown.mask = ((scaled(files.mask) + 1) / 2).transpose(1, 2).contiguous();
  std::vector<at::Tensor> samples;
  for (const auto& of_sample : files.references) {
    std::vector<at::Tensor> each;
    for (const auto& picture : of_sample) each.push_back(on_canvas(picture, shown.height, shown.width, cell));
    if (!each.empty()) samples.push_back(at::stack(each));
  }
  if (!samples.empty()) shown.references = at::stack(samples);
  return shown;
}

nn::Conditioning packed(const models::ShownPictures& shown) {
  nn::Conditioning message;
  for (const auto& [name, part] : kShown) message.whole[name] = shown.*part;
  return message;
}

void unpack(const nn::Conditioning& message, models::ShownPictures& shown) {
  for (const auto& [name, part] : kShown) shown.*part = message.whole.at(name);
}

nn::Conditioning packed(const models::GivenLatents& given) {
  nn::Conditioning message;
  for (const auto& [name, part] : kGiven) message.whole[name] = given.*part;
  return message;
}

void unpack(const nn::Conditioning& message, models::GivenLatents& given) {
  for (const auto& [name, part] : kGiven) given.*part = message.whole.at(name);
}

void record(const models::ShownPictures& shown, ActivationRecorder& probes) {
  for (const auto& [name, part] : kShown) {
    if ((shown.*part).defined()) probes.whole(str("shown.", name), shown.*part);
  }
}

void record(const models::GivenLatents& given, ActivationRecorder& probes) {
  for (const auto& [name, part] : kGiven) {
    if ((given.*part).defined()) probes.whole(str("given.", name), given.*part);
  }
}

GivenTokens tokens_of(const models::GivenLatents& given, const models::Family& family,
                      const models::Grid& grid, const at::TensorOptions& options) {
  const auto pack = [&](const at::Tensor& t) {
    return t.defined() ? family.pack(t.to(options)).contiguous() : at::Tensor();
  };
  GivenTokens tokens{.channels = pack(given.channels), .control = pack(given.control)};
  if (!given.known.defined()) return tokens;
  const auto front = pack(given.known);
  auto sizes = front.sizes().vec();
  sizes[0] = grid.tokens() - front.size(0);
  tokens.known = at::cat({front, at::zeros(sizes, options)});
  tokens.is_known = at::zeros({grid.tokens(), 1, 1}, options.dtype(at::kBool));
  tokens.is_known.narrow(0, 0, front.size(0)).fill_(true);
  return tokens;
}

}  // namespace atelier::pipeline
