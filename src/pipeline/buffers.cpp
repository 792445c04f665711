#include "pipeline/buffers.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/check.h"
#include "pipeline/device.h"

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

GivenTokens GivenTokens::held(std::span<const Range> ranges) const {
  const auto part = [&](const at::Tensor& t) { return t.defined() ? rows_of(t, ranges) : t; };
  return {part(channels), part(control), part(known), part(is_known)};
}

at::Tensor GivenTokens::with_known(const at::Tensor& latents) const {
  return known.defined() ? at::where(is_known, known, latents) : latents;
}

GivenTokens RequestBuffers::given_of(int patch) const {
  const Range all{0, latents.size(0)};
  return given.held(std::span(patch < 0 ? &all : &rows[static_cast<size_t>(patch)], 1));
}

bool RequestBuffers::assign_given_(const GivenTokens& fresh) {
  bool is_new = nn::assign_stable_(given.channels, fresh.channels);
  is_new |= nn::assign_stable_(given.control, fresh.control);
  is_new |= nn::assign_stable_(given.known, fresh.known);
  return is_new | nn::assign_stable_(given.is_known, fresh.is_known);
}

int64_t RequestBuffers::bytes() const {
  int64_t all = 0;
  const auto add = [&](const at::Tensor& t) { all += t.defined() ? static_cast<int64_t>(t.nbytes()) : 0; };
  for (const auto& t : {latents, step, input_divisors, given.channels, given.control, given.known}) add(t);
  for (const auto& experts : contexts) {
    for (const auto& context : experts) {
      add(context.tables), add(context.given);
      for (const auto& stream : context.streams) add(stream);
      for (const auto& [layer, one] : context.cross) add(one.kv), add(one.mask);
    }
  }
  for (const auto& row : by_pass) {
    for (const auto& call : row) {
      add(call.prediction), add(call.state.position_embeddings);
      for (const auto* boxes : {&call.inbox, &call.outbox}) std::for_each(boxes->begin(), boxes->end(), add);
      for (const auto& [block, skip] : call.state.skips) add(skip);
      for (const auto& rope : call.state.ropes) add(rope.cos), add(rope.sin);
      all += call.cache.bytes();
    }
  }
  return all;
}

BufferKey key_of(const Denoise& w, int patches, bool are_together) {
  BufferKey key{
      w.latents.size(1),  w.latents.size(2), w.grid.frames,          w.grid.rows,
      w.grid.cols,        patches,           std::ssize(w.branches), sampling::scales_input(*w.sampler),
      w.grid.as_published};
  const auto add = [&](const at::Tensor& t) {
    key.push_back(t.defined() ? t.dim() : -1);
    if (t.defined()) key.insert(key.end(), t.sizes().begin(), t.sizes().end());
  };
  for (const auto& stream : w.branches[0].streams) add(stream);
  for (const auto& [name, tensor] : w.branches[0].whole) add(tensor);
  for (const auto& t : {w.given.channels, w.given.control, w.given.known}) add(t);
  key.push_back(w.branches[0].lengths.empty());
  key.push_back(are_together);
  return key;
}

bool fit_together(std::span<const nn::Conditioning> branches) {
  if (branches.size() != 2) return false;
  const nn::Conditioning &a = branches[0], &b = branches[1];
  const auto fits = [](const at::Tensor& x, const at::Tensor& y) { return x.sizes() == y.sizes(); };
  if (!std::equal(a.streams.begin(), a.streams.end(), b.streams.begin(), b.streams.end(), fits)) return false;
  if (a.whole.size() != b.whole.size() || a.lengths.size() != b.lengths.size() || a.guidance != b.guidance)
    return false;
  return std::all_of(a.whole.begin(), a.whole.end(), [&](const auto& named) {
    const auto other = b.whole.find(named.first);
    if (other == b.whole.end() || !fits(named.second, other->second)) return false;
    return named.second.dim() > 1 || named.second.equal(other->second);
  });
}

namespace {

BranchBuffers make_call(const Denoiser& denoiser, const RequestBuffers& buffers, const Denoise& w,
                        std::optional<int> patch, int branch) {
  BranchBuffers made;
  made.call = buffers.whole;
  made.call.patch = patch;
  made.call.branch = branch;
  for (size_t s = 0; s < denoiser.family.streams.size(); ++s) {
    const auto& layout = buffers.whole.streams[s];
    const auto all =
        denoiser.family.coordinates(denoiser.config, w.grid, static_cast<int>(s), layout.patches.total);
    made.state.positions.push_back(rows_of(all, layout.held(buffers.whole.seq_rank, patch)));
    made.state.n.push_back(made.state.positions.back().size(0));
  }
  return made;
}

// Layouts of all streams; tokens of the joint ones come with the conditioning, in order.
std::vector<nn::Layout> layouts_of(const Denoiser& denoiser, const Denoise& w, int patches, int seq_parts) {
  std::vector<nn::Layout> layouts;
  size_t joint = 0;
  for (const auto& stream : denoiser.family.streams) {
    const bool is_joint = stream.kind == models::StreamSpec::kJoint;
    const int64_t tokens = is_joint ? w.branches[0].streams.at(joint++).size(0) : w.grid.tokens();
    layouts.push_back({.patches = {tokens, patches},
                       .seq_parts = seq_parts,
                       .pinned_to_first_patch = stream.pinned_to_first_patch,
                       .unit = is_joint ? 1 : w.grid.together});
  }
  return layouts;
}

}  // namespace

RequestBuffers make_buffers(const Denoiser& denoiser, const Denoise& w, int patches, bool are_together,
                            const parallel::ParallelContext& parallel_context, at::TensorOptions options) {
  RequestBuffers made;
  made.patches = patches;
  made.whole.streams = layouts_of(denoiser, w, patches, parallel_context.seq_parts());
  made.whole.seq_rank = parallel_context.seq_rank();
  made.latent_stream = denoiser.family.latent_stream();
  for (const auto& stream : denoiser.family.streams) made.kinds.push_back(stream.kind);
  for (int p = 0, row = 0; p < patches; ++p) {
    const int64_t n = made.latent_layout().count(parallel_context.seq_rank(), p);
    made.rows.push_back({row, n});
    row += static_cast<int>(n);
    auto& tokens = made.patch_tokens.emplace_back(0);
    for (int r = 0; r < parallel_context.seq_parts(); ++r) tokens += made.latent_layout().count(r, p);
  }
  auto sizes = w.latents.sizes().vec();
  sizes[0] = made.latent_layout().count(parallel_context.seq_rank(), std::nullopt);
  made.latents = at::empty(sizes, w.latents.options().device(options.device()));
  made.step = at::zeros({1}, options.dtype(at::kLong));
  // A request of one branch is drawn by both halves of a CFG layout.
  const bool split = parallel_context.mesh().size(Axis::kCfg) > 1 && w.branches.size() > 1;
  for (int b = 0; b < static_cast<int>(w.branches.size()); ++b) {
    if (split && parallel_context.mesh().index(Axis::kCfg) != b) continue;
    if (are_together && !made.passes.empty())
      made.passes.back().push_back(b);
    else
      made.passes.push_back({b});
  }
  for (const auto& pass : made.passes) {
    auto& row = made.by_pass.emplace_back();
    row.push_back(make_call(denoiser, made, w, std::nullopt, pass[0]));
    for (int p = 0; p < patches && patches > 1; ++p) row.push_back(make_call(denoiser, made, w, p, pass[0]));
  }
  return made;
}

namespace {

// The samples of both, one after another. What has one dimension is no sample's own.
void append(nn::Conditioning& to, const nn::Conditioning& more) {
  for (size_t i = 0; i < to.streams.size(); ++i) to.streams[i] = at::cat({to.streams[i], more.streams[i]}, 1);
  for (auto& [name, value] : to.whole) {
    if (value.dim() > 1) value = at::cat({value, more.whole.at(name)}, 0);
  }
  to.lengths.insert(to.lengths.end(), more.lengths.begin(), more.lengths.end());
}

}  // namespace

std::vector<nn::Conditioning> held_of(const Denoise& work, const RequestBuffers& b) {
  std::vector<nn::Conditioning> held;
  for (const auto& pass : b.passes) {
    auto& mine = held.emplace_back(work.branches[static_cast<size_t>(pass[0])]);
    for (size_t i = 1; i < pass.size(); ++i) append(mine, work.branches[static_cast<size_t>(pass[i])]);
    for (size_t i = 0, joint = 0; i < b.whole.streams.size(); ++i) {
      if (b.kinds[i] != models::StreamSpec::kJoint) continue;
      auto& tokens = mine.streams.at(joint++);
      ENSURE(tokens.size(0) == b.whole.streams[i].patches.total);
      tokens = rows_of(tokens, b.whole.streams[i].held(b.whole.seq_rank, std::nullopt));
    }
  }
  return held;
}

void gather_latents(at::Tensor& whole, const RequestBuffers& mine, const at::Tensor& held,
                    comm::Comm* group) {
  const auto& layout = mine.latent_layout();
  const int64_t width = whole.size(1) * whole.size(2);
  at::Tensor all = held;
  if (group) {
    std::vector<int64_t> split;
    for (int r = 0; r < group->size(); ++r) split.push_back(layout.count(r, std::nullopt) * width);
    all = at::empty({whole.numel()}, whole.options());
    group->all_gather(all, held, split).wait();
    all = all.view(whole.sizes());
  }
  int64_t row = 0;
  for (int r = 0; r < layout.seq_parts; ++r) {
    for (const Range& to : layout.held(r, std::nullopt)) {
      whole.narrow(0, to.begin, to.size).copy_(all.narrow(0, row, to.size));
      row += to.size;
    }
  }
}

RequestBuffers& BufferCache::get(const BufferKey& key, const std::function<RequestBuffers()>& make) {
  const auto found =
      std::find_if(kept_.begin(), kept_.end(), [&](const KeptBuffers& k) { return k.key == key; });
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front().buffers;
  }
  while (true) {
    try {
      kept_.push_front({key, make()});
      break;
    } catch (const std::exception& e) {
      if (kept_.empty() || !is_out_of_memory(e)) throw;
    }
    drop_oldest();
  }
  kept_.front().buffers.id = next_id_++;
  trim();
  return kept_.front().buffers;
}

void BufferCache::trim() {
  while (kept_.size() > 1 && bytes() > budget_) drop_oldest();
}

void BufferCache::clear() {
  while (!kept_.empty()) drop_oldest();
}

void BufferCache::drop_oldest() {
  const int id = kept_.back().buffers.id;
  graphs_.forget(id);
  parallel_context_.forget(id);
  kept_.pop_back();
}

int64_t BufferCache::bytes() const {
  int64_t all = 0;
  for (const auto& k : kept_) {
    const int id = k.buffers.id;
    all += k.buffers.bytes() + graphs_.bytes(id) + parallel_context_.kept_bytes(id);
  }
  return all;
}

}  // namespace atelier::pipeline
