// The block loop under a step cache: what leads to the decision, the decision, and the rest of the blocks or
// what they added before. Each of the three is a graph of its own.
#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "nn/norm.h"
#include "pipeline/executor_walk.h"

namespace atelier::pipeline {

using plan::Op;

namespace {

enum CachedPart { kLeading, kRest, kReused, kCachedParts };

// What every part begins with. The state is the pass's own while this object lives: recorded memory must
// be let go.
class PartState {
 public:
  PartState(const RequestBuffers& b, BranchBuffers& call, size_t branches)
      : s(call.state), stream_(b.latent_stream) {
    s.row = at::index_select(s.context->tables, 0, b.step).squeeze(0);
    s.control = b.given.control;
    if (s.control.defined()) s.control = s.control.repeat({1, static_cast<int64_t>(branches), 1});
  }
  ~PartState() { s.x.reset(), s.row.reset(), s.control.reset(); }
  PartState(const PartState&) = delete;
  PartState& operator=(const PartState&) = delete;
  at::Tensor latents() const { return s.stream(stream_); }

  nn::State& s;

 private:
  int stream_;
};

plan::ModelChunk part_of(const plan::ModelChunk& chunk, int begin, int end) {
  auto part = chunk;
  part.begin = begin, part.end = end;
  return part;
}

}  // namespace

void Executor::prepare_cache(Walk& w) const {
  ENSURE(route_.size() == 1 && w.buffers.patches == 1 && route_[0].end > 1);
  for (const auto& pass : w.buffers.passes)
    w.decisions.emplace_back(w.work.cache, static_cast<int>(w.steps.size()),
                             std::ssize(pass) * w.work.latents.size(1));
}

// All passes come to the decision first: one look at the device serves them all.
void Executor::run_cached(const Op& op, Walk& w) {
  auto& b = w.buffers;
  b.step.fill_(op.step);
  const int expert = w.steps[static_cast<size_t>(op.step)].expert;
  const auto run_part = [&](size_t pass, CachedPart part, auto&& body) {
    const int number = kCachedParts * static_cast<int>(w.work.cache.kind) + part;
    graphs_.run({b.id, op.chunk, static_cast<int>(pass), op.patch, expert, number}, body);
  };
  std::vector<std::unique_ptr<Listening>> here;
  for (size_t i = 0; i < b.passes.size(); ++i) {
    auto& call = b.at(i, op.patch);
    const auto& context = b.contexts[i].at(static_cast<size_t>(expert));
    call.state.context = &context;
    const int64_t tokens = std::accumulate(call.state.n.begin(), call.state.n.end(), int64_t{0});
    call.cache.make({tokens, context.tables.size(1), context.width}, b.latents.size(0), w.work.cache,
                    options_);
    if (w.listens()) here.push_back(listen(op, w, call));
    run_part(i, kLeading, [&] { run_leading(w, i, expert); });
  }
  const auto reused = decide(op, w);
  for (size_t i = 0; i < b.passes.size(); ++i) {
    if (std::all_of(reused[i].begin(), reused[i].end(), [](bool yes) { return yes; })) {
      run_part(i, kReused, [&] { run_reused(w, i, expert); });
    } else {
      const std::vector<uint8_t> those(reused[i].begin(), reused[i].end());
      b.at(i, op.patch).cache.is_reused.copy_(at::tensor(those).view({1, -1, 1}));
      run_part(i, kRest, [&] { run_rest(w, i, expert); });
      count(w, i);
    }
    if (w.listens()) record_output(op, w, b.at(i, op.patch));
  }
}

void Executor::run_leading(const Walk& w, size_t pass, int expert) {
  auto& b = w.buffers;
  auto& call = b.at(pass, -1);
  const auto& e = denoiser_.experts[static_cast<size_t>(expert)];
  PartState part(b, call, b.passes[pass].size());
  e.model->embed(call.call, part.s, model_input(b, -1));
  if (w.work.cache.kind == StepCacheRule::kTea) {
    const auto table = e.model->first_modulation();
    ENSURE(table.size > 0);
    const auto m = nn::modulations(table, part.s, part.s.context->width).attention;
    const at::Tensor signal = nn::norm(part.latents(), m);
    call.cache.compare(signal);
    call.cache.reference.copy_(signal);
  } else {
    const auto before = part.latents().clone();
    run_blocks(e, part_of(route_[0], 0, w.work.cache.leading_blocks()), call);
    call.cache.signal.copy_(part.latents() - before);
    call.cache.compare(call.cache.signal);
  }
  call.cache.hidden.copy_(part.s.x);
}

// The samples of one pass and of all ranks that hold a part of it: every rank sees the same bits.
std::vector<std::vector<bool>> Executor::decide(const Op& op, Walk& w) {
  auto& b = w.buffers;
  std::vector<at::Tensor> mine;
  for (size_t i = 0; i < b.passes.size(); ++i) mine.push_back(b.at(i, op.patch).cache.sums);
  auto sums = at::stack(mine);  // [passes, 2, samples]
  if (positions_) positions_->sum(sums);
  // Ranks of a tensor group have the same sums already; as many times as much is the same ratio,
  // and cannot differ.
  if (auto* features = parallel_context_.denoiser().features) features->sum(sums);
  sums = sums.to(at::kCPU);
  std::vector<std::vector<bool>> reused;
  for (size_t i = 0; i < b.passes.size(); ++i) {
    const auto* change = sums[static_cast<int64_t>(i)].const_data_ptr<double>();
    std::vector<SignalSums> samples(static_cast<size_t>(sums.size(2)));
    for (size_t k = 0; k < samples.size(); ++k) samples[k] = {change[k], change[samples.size() + k]};
    const int expert = w.steps[static_cast<size_t>(op.step)].expert;
    reused.push_back(w.decisions[i].decide(op.step, expert, samples));
    const auto taken = std::count(reused[i].begin(), reused[i].end(), true);
    w.counts.reused += taken;
    w.counts.computed += std::ssize(samples) - taken;
  }
  return reused;
}

// Samples that take what is kept are what they would be alone, although the others need the blocks.
void Executor::run_rest(const Walk& w, size_t pass, int expert) {
  auto& b = w.buffers;
  auto& call = b.at(pass, -1);
  auto& cache = call.cache;
  const auto& e = denoiser_.experts[static_cast<size_t>(expert)];
  PartState part(b, call, b.passes[pass].size());
  part.s.x = cache.hidden;
  const auto before = part.latents().clone();
  run_blocks(e, part_of(route_[0], w.work.cache.leading_blocks(), route_[0].end), call);
  auto after = part.latents();
  cache.rest.copy_(at::where(cache.is_reused, cache.rest, after - before));
  after.copy_(at::where(cache.is_reused, before + cache.rest, after));
  if (cache.signal.defined() && w.work.cache.kind == StepCacheRule::kFirstBlock)
    cache.reference.copy_(at::where(cache.is_reused, cache.reference, cache.signal));
  put(call.prediction, e.model->head(call.call, part.s));
}

void Executor::run_reused(const Walk& w, size_t pass, int expert) {
  auto& b = w.buffers;
  auto& call = b.at(pass, -1);
  PartState part(b, call, b.passes[pass].size());
  part.s.x = call.cache.hidden;
  part.latents().add_(call.cache.rest);
  put(call.prediction, denoiser_.experts[static_cast<size_t>(expert)].model->head(call.call, part.s));
}

// Halves of a CFG layout have a branch each.
StepCacheCounts Executor::counted(const Walk& w) const {
  if (!w.work.cache.is_on() || w.buffers.passes.size() == w.work.branches.size() ||
      w.buffers.passes[0].size() == w.work.branches.size())
    return w.counts;
  auto both = at::tensor({w.counts.computed, w.counts.reused}).to(options_.device());
  parallel_context_.cfg()->all_reduce(both).wait();
  both = both.to(at::kCPU);
  return {both[0].item<int64_t>(), both[1].item<int64_t>()};
}

}  // namespace atelier::pipeline
