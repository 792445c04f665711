#include "pipeline/buffers.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"

namespace atelier::pipeline {

using plan::Axis;

at::Tensor rows_of(const at::Tensor& whole, std::span<const Range> ranges) {
  std::vector<at::Tensor> parts;
  for (const Range& r : ranges) parts.push_back(whole.narrow(0, r.begin, r.size));
  if (parts.empty()) return whole.narrow(0, 0, 0);
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

at::Tensor RequestBuffers::latents_of(int patch) const {
  if (patch < 0) return latents;
  const Range r = rows[static_cast<size_t>(patch)];
  return latents.narrow(0, r.begin, r.size);
}

std::string shape_of(const Denoise& w, int patches) {
  return atelier::str(w.latents.sizes(), " ", w.branches.size(), " ", w.branches[0].text.sizes(), " ",
                      w.sampler->timesteps().size(), " ", w.grid.rows, "x", w.grid.cols, " ", patches);
}

namespace {

BranchBuffers make_branch_buffers(const models::Family& family, const RequestBuffers& buffers,
                                  const Denoise& w, std::optional<int> patch, int branch) {
  BranchBuffers branch_buffers;
  branch_buffers.call = buffers.whole;
  branch_buffers.call.patch = patch;
  branch_buffers.call.branch = branch;
  const int rank = buffers.whole.seq_rank;
  const auto held = [&](int stream) {
    return buffers.whole.streams[static_cast<size_t>(stream)].held(rank, patch);
  };
  branch_buffers.state.positions = {
      rows_of(family.text_coordinates(w.branches[0].text.size(0)), held(kTextStream)),
      rows_of(family.coordinates(w.grid), held(kImageStream))};
  for (const auto& at : branch_buffers.state.positions) branch_buffers.state.n.push_back(at.size(0));
  return branch_buffers;
}

}  // namespace

RequestBuffers make_buffers(const models::Family& family, const Denoise& w, int patches,
                            const parallel::ParallelContext& parallel_context, at::TensorOptions options) {
  RequestBuffers buffers;
  buffers.shape = shape_of(w, patches);
  buffers.patches = patches;
  buffers.whole.streams.resize(2);
  buffers.whole.streams[kTextStream] = {.patches = {w.branches[0].text.size(0), patches},
                                        .seq_parts = parallel_context.seq_parts(),
                                        .pinned_to_first_patch = true};
  buffers.whole.streams[kImageStream] = {.patches = {w.grid.rows * w.grid.cols, patches},
                                         .seq_parts = parallel_context.seq_parts()};
  buffers.whole.seq_rank = parallel_context.seq_rank();

  const auto& image = buffers.whole.streams[kImageStream];
  for (int p = 0, row = 0; p < patches; ++p) {
    const int64_t n = image.count(parallel_context.seq_rank(), p);
    buffers.rows.push_back({row, n});
    row += static_cast<int>(n);
    buffers.samplers.push_back(nullptr);
  }
  const auto held = image.held(parallel_context.seq_rank(), std::nullopt);
  auto sizes = w.latents.sizes().vec();
  sizes[0] = image.count(parallel_context.seq_rank(), std::nullopt);
  buffers.latents = at::empty(sizes, w.latents.options().device(options.device()));
  buffers.step = at::zeros({1}, options.dtype(at::kLong));

  const bool split = parallel_context.mesh().size(Axis::kCfg) > 1;
  for (int b = 0; b < static_cast<int>(w.branches.size()); ++b) {
    if (!split || parallel_context.mesh().index(Axis::kCfg) == b) buffers.branches.push_back(b);
  }
  buffers.contexts.resize(buffers.branches.size());
  for (const int b : buffers.branches) {
    auto& row = buffers.by_branch.emplace_back();
    row.push_back(make_branch_buffers(family, buffers, w, std::nullopt, b));
    for (int p = 0; p < patches && patches > 1; ++p)
      row.push_back(make_branch_buffers(family, buffers, w, p, b));
  }
  return buffers;
}

}  // namespace atelier::pipeline
