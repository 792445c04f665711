#include "pipeline/buffers.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"

namespace atelier::pipeline {

using plan::Axis;

at::Tensor take(const at::Tensor& whole, std::span<const Range> ranges) {
  std::vector<at::Tensor> parts;
  for (const Range& r : ranges) parts.push_back(whole.narrow(0, r.begin, r.size));
  if (parts.empty()) return whole.narrow(0, 0, 0);
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

at::Tensor Lanes::latents_of(int patch) const {
  if (patch < 0) return latents;
  const Range r = rows[static_cast<size_t>(patch)];
  return latents.narrow(0, r.begin, r.size);
}

std::string shape_of(const Denoise& w, int patches) {
  return atelier::str(w.latents.sizes(), " ", w.branches.size(), " ", w.branches[0].text.sizes(), " ",
                      w.sampler->timesteps().size(), " ", w.grid.rows, "x", w.grid.cols, " ", patches);
}

namespace {

Lane make_lane(const models::Family& family, const Lanes& lanes, const Denoise& w, std::optional<int> patch,
               int branch) {
  Lane lane;
  lane.frame = lanes.whole;
  lane.frame.patch = patch;
  lane.frame.branch = branch;
  const int rank = lanes.whole.seq_rank;
  const auto held = [&](int stream) {
    return lanes.whole.streams[static_cast<size_t>(stream)].held(rank, patch);
  };
  lane.state.at = {take(family.text_coordinates(w.branches[0].text.size(0)), held(kTextStream)),
                   take(family.coordinates(w.grid), held(kImageStream))};
  for (const auto& at : lane.state.at) lane.state.n.push_back(at.size(0));
  return lane;
}

}  // namespace

Lanes make_lanes(const models::Family& family, const Denoise& w, int patches,
                 const parallel::Assembly& assembly, at::TensorOptions options) {
  Lanes lanes;
  lanes.shape = shape_of(w, patches);
  lanes.patches = patches;
  lanes.whole.streams.resize(2);
  lanes.whole.streams[kTextStream] = {.patches = {w.branches[0].text.size(0), patches},
                                      .seq_parts = assembly.seq_parts(),
                                      .rides_first = true};
  lanes.whole.streams[kImageStream] = {.patches = {w.grid.rows * w.grid.cols, patches},
                                       .seq_parts = assembly.seq_parts()};
  lanes.whole.seq_rank = assembly.seq_rank();

  const auto& image = lanes.whole.streams[kImageStream];
  for (int p = 0, row = 0; p < patches; ++p) {
    const int64_t n = image.count(assembly.seq_rank(), p);
    lanes.rows.push_back({row, n});
    row += static_cast<int>(n);
    lanes.samplers.push_back(nullptr);
  }
  const auto held = image.held(assembly.seq_rank(), std::nullopt);
  auto sizes = w.latents.sizes().vec();
  sizes[0] = image.count(assembly.seq_rank(), std::nullopt);
  lanes.latents = at::empty(sizes, w.latents.options().device(options.device()));
  lanes.step = at::zeros({1}, options.dtype(at::kLong));

  const bool split = assembly.mesh().size(Axis::kGuidance) > 1;
  for (int b = 0; b < static_cast<int>(w.branches.size()); ++b) {
    if (!split || assembly.mesh().index(Axis::kGuidance) == b) lanes.branches.push_back(b);
  }
  lanes.contexts.resize(lanes.branches.size());
  for (const int b : lanes.branches) {
    auto& row = lanes.lanes.emplace_back();
    row.push_back(make_lane(family, lanes, w, std::nullopt, b));
    for (int p = 0; p < patches && patches > 1; ++p) row.push_back(make_lane(family, lanes, w, p, b));
  }
  return lanes;
}

}  // namespace atelier::pipeline
