// The executor's ends of a step: what travels between stages, guidance, and the sampler.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "pipeline/executor_walk.h"
#include "pipeline/patch_moments.h"

namespace atelier::pipeline {

using plan::Op;

namespace {

at::Tensor like_hidden(const BranchBuffers& call, const nn::RequestContext& context,
                       at::TensorOptions options) {
  const int64_t n = std::accumulate(call.state.n.begin(), call.state.n.end(), int64_t{0});
  return at::empty({n, context.tables.size(1), context.width}, options);
}

}  // namespace

void Executor::send(const Op& op, Walk& w) {
  auto* hop = parallel_context_.hop({stage(), op.peer_stage});
  for (size_t i = 0; i < w.buffers.passes.size(); ++i) {
    auto& call = w.buffers.at(i, op.patch);
    const auto& message = ends_with(op.chunk) ? call.prediction : call.outbox[static_cast<size_t>(op.chunk)];
    sends_.push_back(hop->send(message.contiguous(), 1));
  }
  // Letting go of a send waits for it; the schedule promises that so old ones have been received.
  const size_t most = 4 * w.buffers.passes.size() * static_cast<size_t>(w.buffers.patches);
  if (sends_.size() > most) sends_.erase(sends_.begin(), sends_.end() - static_cast<std::ptrdiff_t>(most));
}

void Executor::receive(const Op& op, Walk& w) {
  auto* hop = parallel_context_.hop({op.peer_stage, stage()});
  const auto next = static_cast<size_t>(op.chunk) + 1;
  const bool last = ends_with(op.chunk);
  for (size_t i = 0; i < w.buffers.passes.size(); ++i) {
    auto& call = w.buffers.at(i, op.patch);
    auto& buffer = last ? call.prediction : call.inbox[next];
    if (!buffer.defined()) {
      auto sizes = w.buffers.latents_of(op.patch).sizes().vec();
      sizes[1] *= std::ssize(w.buffers.passes[i]);
      buffer = last ? at::empty(sizes, options_) : like_hidden(call, w.buffers.contexts[i][0], options_);
    }
    call.incoming[next] = hop->recv(buffer, 0);
  }
}

at::Tensor Executor::guided(const Op& op, Walk& w) {
  auto& b = w.buffers;
  std::vector<at::Tensor> branches;
  for (size_t i = 0; i < b.passes.size(); ++i) {
    auto& call = b.at(i, op.patch);
    call.incoming.back().wait();
    for (const auto& one : call.prediction.chunk(std::ssize(b.passes[i]), 1))
      branches.push_back(one.to(w.work.latents.scalar_type()));
  }
  if (branches.size() < w.work.branches.size()) {
    const auto mine = branches[0].contiguous();
    auto both = at::empty({2, mine.size(0), mine.size(1), mine.size(2)}, mine.options());
    const int64_t split[] = {mine.numel(), mine.numel()};
    parallel_context_.cfg()->all_gather(both, mine, split).wait();
    branches = {both[0], both[1]};
  }
  const auto& step = w.steps[static_cast<size_t>(op.step)];
  PatchMoments positions(w.moments, b.patch_tokens, op.patch, positions_ ? &*positions_ : nullptr);
  return sampling::guide({step.cfg.value_or(w.work.cfg.scale), w.work.cfg.rescale}, branches, &positions);
}

void Executor::sample(const Op& op, Walk& w) {
  auto& b = w.buffers;
  const auto prediction = guided(op, w);
  const auto patch = op.patch < 0 ? std::nullopt : std::optional(op.patch);
  at::Tensor noise;
  if (w.steps[static_cast<size_t>(op.step)].draws_noise)
    noise = rows_of(w.work.noise(op.step), b.latent_layout().held(parallel_context_.seq_rank(), patch))
                .to(b.latents.options());
  for (int p = patch.value_or(0); p <= patch.value_or(b.patches - 1); ++p) {
    const Range rows{patch ? 0 : b.rows[static_cast<size_t>(p)].begin, b.rows[static_cast<size_t>(p)].size};
    const auto part = [&](const at::Tensor& t) {
      return t.defined() ? t.narrow(0, rows.begin, rows.size) : t;
    };
    auto x = b.latents_of(p);
    x.copy_(w.samplers[static_cast<size_t>(p)]->step(part(prediction), op.step, x, part(noise)));
  }
  if (w.listens()) record_sample(op, w, prediction);
  if (!w.masked) return;
  const Range rows = patch ? b.rows[static_cast<size_t>(*patch)] : Range{0, b.latents.size(0)};
  w.masked->put_back_(b.latents_of(op.patch), rows, *w.work.sampler, op.step);
}

void Executor::record_sample(const Op& op, Walk& w, const at::Tensor& prediction) {
  auto& b = w.buffers;
  nn::CallContext call = b.at(0, op.patch).call;
  call.branch = 0;  // what is guided belongs to none
  RankRecorder recorder(w.callbacks.probes, str("step", op.step, "."));
  recorder.record(call, "guided", prediction, b.latent_stream);
  recorder.record(call, "latents", b.latents_of(op.patch), b.latent_stream);
}

at::Tensor Executor::gather(const Walk& w) {
  if (!starts() && !w.work.is_for_all) return {};
  auto whole = at::empty(w.work.latents.sizes(), w.buffers.latents.options());
  if (starts()) gather_latents(whole, w.buffers, w.buffers.latents, parallel_context_.sequence());
  if (plan::stages_of(route_) > 1 && w.work.is_for_all) parallel_context_.replica()->broadcast(whole, 0);
  return whole;
}

}  // namespace atelier::pipeline
