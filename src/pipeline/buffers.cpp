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
  std::string shape =
      atelier::str(w.latents.sizes(), " ", w.branches.size(), " ", w.sampler->timesteps().size(), " ",
                   w.grid.frames, "x", w.grid.rows, "x", w.grid.cols, " ", patches);
  const auto& one = w.branches.front();
  for (const auto& t : one.streams) shape += atelier::str(" ", t.sizes());
  for (const auto& [name, t] : one.whole) shape += t.defined() ? atelier::str(" ", name, t.sizes()) : " -";
  return one.lengths.empty() ? shape : shape + " padded";
}

namespace {

BranchBuffers make_branch_buffers(const Denoiser& denoiser, const RequestBuffers& buffers, const Denoise& w,
                                  std::optional<int> patch, int branch) {
  BranchBuffers branch_buffers;
  branch_buffers.call = buffers.whole;
  branch_buffers.call.patch = patch;
  branch_buffers.call.branch = branch;
  const int rank = buffers.whole.seq_rank;
  for (size_t i = 0; i < buffers.whole.streams.size(); ++i) {
    const auto& layout = buffers.whole.streams[i];
    const auto whole =
        denoiser.family.coordinates(denoiser.config, w.grid, static_cast<int>(i), layout.patches.total);
    branch_buffers.state.positions.push_back(rows_of(whole, layout.held(rank, patch)));
    branch_buffers.state.n.push_back(branch_buffers.state.positions.back().size(0));
  }
  return branch_buffers;
}

}  // namespace

RequestBuffers make_buffers(const Denoiser& denoiser, const Denoise& w, int patches,
                            const parallel::ParallelContext& parallel_context, at::TensorOptions options) {
  RequestBuffers buffers;
  buffers.shape = shape_of(w, patches);
  buffers.patches = patches;
  size_t joint = 0;
  for (const auto& spec : denoiser.family.streams) {
    const bool is_latent = spec.kind == models::StreamSpec::kLatent;
    const int64_t total = is_latent ? w.grid.tokens() : w.branches.front().streams.at(joint++).size(0);
    buffers.whole.streams.push_back({.patches = {total, patches},
                                     .seq_parts = parallel_context.seq_parts(),
                                     .pinned_to_first_patch = spec.pinned_to_first_patch});
  }
  buffers.whole.seq_rank = parallel_context.seq_rank();
  buffers.latent_stream = denoiser.family.latent_stream();

  const auto& latent = buffers.latent_layout();
  for (int p = 0, row = 0; p < patches; ++p) {
    const int64_t n = latent.count(parallel_context.seq_rank(), p);
    buffers.rows.push_back({row, n});
    row += static_cast<int>(n);
    buffers.samplers.push_back(nullptr);
  }
  auto sizes = w.latents.sizes().vec();
  sizes[0] = latent.count(parallel_context.seq_rank(), std::nullopt);
  buffers.latents = at::empty(sizes, w.latents.options().device(options.device()));
  buffers.step = at::zeros({1}, options.dtype(at::kLong));

  const bool split = parallel_context.mesh().size(Axis::kCfg) > 1;
  for (int b = 0; b < static_cast<int>(w.branches.size()); ++b) {
    if (!split || parallel_context.mesh().index(Axis::kCfg) == b) buffers.branches.push_back(b);
  }
  buffers.contexts.resize(buffers.branches.size());
  for (const int b : buffers.branches) {
    auto& row = buffers.by_branch.emplace_back();
    row.push_back(make_branch_buffers(denoiser, buffers, w, std::nullopt, b));
    for (int p = 0; p < patches && patches > 1; ++p)
      row.push_back(make_branch_buffers(denoiser, buffers, w, p, b));
  }
  return buffers;
}

}  // namespace atelier::pipeline
