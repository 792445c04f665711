#include "pipeline/executor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "pipeline/device.h"
#include "pipeline/executor_walk.h"

namespace atelier::pipeline {

using plan::Axis;
using plan::Op;

void put(at::Tensor& to, const at::Tensor& from) {
  if (!to.defined() || to.sizes() != from.sizes()) {
    to = from;
  } else if (to.data_ptr() != from.data_ptr()) {
    to.copy_(from);
  }
}

namespace {

// In traces.
const char* name_of(Op::Code kind) {
  switch (kind) {
    case Op::kEmbed:
      return "embed";
    case Op::kRun:
      return "run blocks";
    case Op::kHead:
      return "head";
    case Op::kSend:
      return "send";
    case Op::kRecv:
      return "receive";
    case Op::kSample:
      return "sample";
  }
  return "";
}

}  // namespace

Executor::Executor(const Denoiser& denoiser, parallel::ParallelContext& parallel_context,
                   std::span<const plan::ModelChunk> route, ExecutorOptions options)
    : denoiser_(denoiser),
      parallel_context_(parallel_context),
      route_(route.begin(), route.end()),
      options_(options.tensors),
      joins_branches_(options.joins_branches),
      graphs_(std::move(options.graphs)),
      buffers_(options.kept_bytes, graphs_, parallel_context) {
  if (auto* group = parallel_context.sequence()) positions_.emplace(*group);
}

Executor::~Executor() = default;

int Executor::stage() const {
  return parallel_context_.mesh().index(Axis::kPipeline);
}

std::vector<double> Executor::step_ms() const {
  return timer_ ? timer_->ms() : std::vector<double>{};
}

at::Tensor Executor::denoise(const Denoise& work, const StepCallbacks& callbacks) {
  try {
    const int patches = plan::patch_count(parallel_context_.degrees());
    const bool together = are_together(work, callbacks);
    Walk w(work, callbacks,
           buffers_.get(key_of(work, patches, together), [&] { return make(work, patches, together); }));
    has_joined_ = has_joined_ || w.buffers.passes[0].size() > 1;
    prepare(w);
    walk(w);
    cache_counts_ = counted(w);
    auto whole = gather(w);
    buffers_.trim();
    return whole;
  } catch (const std::exception& e) {
    // Whoever tries again has all of the memory. With peers nobody does.
    if (is_out_of_memory(e) && !parallel_context_.replica()) buffers_.clear();
    throw;
  }
}

// One pass over both branches fills the device better than two; where a batch fills it anyway, two take less
// memory. Recordings hold the branches apart.
bool Executor::are_together(const Denoise& work, const StepCallbacks& callbacks) const {
  constexpr int64_t kFull = 32768;  // tokens
  return joins_branches_ && !callbacks.probes && work.latents.size(0) * work.latents.size(1) <= kFull &&
         fit_together(work.branches);
}

RequestBuffers Executor::make(const Denoise& work, int patches, bool together) {
  auto made = make_buffers(denoiser_, work, patches, together, parallel_context_, options_);
  made.contexts.resize(made.passes.size(), std::vector<nn::RequestContext>(denoiser_.experts.size()));
  for (auto& row : made.by_pass) {
    for (auto& call : row) {
      call.inbox.resize(route_.size());
      call.outbox.resize(route_.size());
      call.incoming.resize(route_.size() + 1);
      denoiser_.experts[0].model->enter(call.call, call.state);
    }
  }
  return made;
}

void Executor::prepare(Walk& w) {
  auto& b = w.buffers;
  for (auto& row : b.by_pass) {
    for (auto& call : row) call.call.buffers = b.id;
  }
  parallel_context_.begin_request(b.id);
  const auto held = b.latent_layout().held(parallel_context_.seq_rank(), std::nullopt);
  b.latents.copy_(rows_of(w.work.latents, held));
  if (w.work.masked) w.masked = w.work.masked->held(held);
  bool is_new = b.assign_given_(w.work.given.held(held));
  if (sampling::scales_input(*w.work.sampler)) {
    std::vector<float> divisors;
    for (const auto& step : w.steps) divisors.push_back(step.input_divisor);
    is_new = nn::assign_by_step_(b.input_divisors, at::tensor(divisors).to(b.latents.options()));
  }
  const auto conditionings = held_of(w.work, b);
  for (size_t e = 0; e < denoiser_.experts.size(); ++e) is_new |= begin(w, conditionings, e);
  if (w.work.cache.is_on()) prepare_cache(w);
  if (is_new) graphs_.forget(b.id);
}

bool Executor::begin(Walk& w, std::span<const nn::Conditioning> held, size_t expert) {
  auto& b = w.buffers;
  const auto times = sampling::times(*w.work.sampler);
  std::vector<nn::RequestContext> fresh;
  for (size_t i = 0; i < held.size(); ++i) {
    nn::CallContext call = b.at(i, -1).call;
    RankRecorder recorder(w.callbacks.probes, blocks_prefix(expert));
    if (w.listens()) call.probes = &recorder;
    fresh.push_back(denoiser_.experts[expert].model->begin(call, held[i], times));
  }
  if (!fresh.empty() && fresh.front().prompt.defined()) begin_blocks(denoiser_.experts[expert], held, fresh);
  bool is_new = false;
  for (size_t i = 0; i < held.size(); ++i) is_new |= b.contexts[i][expert].assign_(fresh[i]);
  return is_new;
}

// Every block makes what it needs of the prompt, for all branches while its weights are there.
void Executor::begin_blocks(const Denoiser::Expert& expert, std::span<const nn::Conditioning> held,
                            std::span<nn::RequestContext> contexts) {
  std::vector<int> blocks;
  for (const auto& chunk : plan::chunks_of(route_, stage())) {
    for (int i = chunk.begin; i < chunk.end; ++i) blocks.push_back(i);
  }
  expert.memory->will_run(blocks);
  for (const int i : blocks) {
    expert.memory->before(i);
    for (size_t b = 0; b < held.size(); ++b) expert.model->begin_block(i, held[b], contexts[b]);
  }
}

// Begins the steps in order, each just before its first operation here, and leaves out what belongs
// to later ones.
void Executor::walk(Walk& w) {
  const auto lists = plan::schedule(route_, w.buffers.patches, static_cast<int>(w.steps.size()),
                                    parallel_context_.degrees().warmup);
  timer_ = std::make_unique<StepTimer>(options_.device());
  timer_->mark();
  for (const Op& op : lists[static_cast<size_t>(stage())]) {
    while (w.begun < std::min(op.step, w.end - 1)) begin_step(w, w.begun + 1);
    if (op.step < w.end) perform(op, w);
  }
  end_step(w);
  sends_.clear();  // waits for them
  const int steps = static_cast<int>(w.steps.size());
  if (w.end == steps && (!w.callbacks.may_begin || w.callbacks.may_begin(steps))) return;
  synchronize(options_.device());  // nothing of it runs into the next request
  throw Error(Kind::kInterrupted, str("interrupted after ", w.end, " of ", steps, " steps"));
}

void Executor::begin_step(Walk& w, int step) {
  end_step(w);
  // The host is at most two steps ahead of its device, so that few are left to run when a request
  // is given up.
  if (step > 1) timer_->wait_for(step - 1);
  if (w.callbacks.may_begin && !w.callbacks.may_begin(step)) {
    w.end = step;
  } else {
    w.begun = step;
    if (is_previewed(w, step)) w.before = w.buffers.latents.clone();
  }
}

void Executor::end_step(Walk& w) {
  if (w.ended == w.begun) return;
  w.ended = w.begun;
  timer_->mark();
  if (w.callbacks.on_step) w.callbacks.on_step(w.ended);
  preview(w);
}

bool Executor::is_previewed(const Walk& w, int step) const {
  const bool is_last = step + 1 == static_cast<int>(w.steps.size());
  return !is_last && starts() && w.callbacks.wants_preview && w.callbacks.wants_preview(step);
}

// All ranks of the first stage are at the same place of one schedule here. Goes on along the step until no
// noise is left, which is where an Euler step of the same prediction would end.
void Executor::preview(Walk& w) {
  if (!w.before.defined()) return;
  const auto sigmas = w.work.sampler->sigmas();
  const auto at = static_cast<size_t>(w.ended);
  const double from = sigmas[at], to = sigmas[at + 1];
  const auto& now = w.buffers.latents;
  const auto clean = from > to ? now + (now - w.before) * (to / (from - to)) : now;
  w.before.reset();
  auto whole = at::empty(w.work.latents.sizes(), now.options());
  gather_latents(whole, w.buffers, clean.contiguous(), parallel_context_.sequence());
  if (w.callbacks.on_latents) w.callbacks.on_latents(w.ended, whole);
}

void Executor::perform(const Op& op, Walk& w) {
  RECORD_USER_SCOPE(name_of(op.kind));
  switch (op.kind) {
    case Op::kEmbed:  // part of the first chunk's run
    case Op::kHead:   // part of the last chunk's run
      return;
    case Op::kRun:
      return run(op, w);
    case Op::kSend:
      return send(op, w);
    case Op::kRecv:
      return receive(op, w);
    case Op::kSample:
      return sample(op, w);
  }
}

// Each step once, however many patches and chunks it has here.
void Executor::count(const Op& op, const Walk& w) {
  const auto end = route_.begin() + op.chunk;
  const bool is_first =
      op.patch <= 0 && std::none_of(route_.begin(), end, [&](const auto& c) { return c.stage == stage(); });
  for (size_t i = 0; is_first && i < w.buffers.passes.size(); ++i) count(w, i);
}

void Executor::count(const Walk& w, size_t pass) {
  samples_ += std::ssize(w.buffers.passes[pass]) * w.work.latents.size(1);
}

void Executor::run(const Op& op, Walk& w) {
  if (w.work.cache.is_on()) return run_cached(op, w);
  count(op, w);
  auto& b = w.buffers;
  b.step.fill_(op.step);
  const int expert = w.steps[static_cast<size_t>(op.step)].expert;
  for (size_t i = 0; i < b.passes.size(); ++i) {
    auto& call = b.at(i, op.patch);
    call.incoming[static_cast<size_t>(op.chunk)].wait();
    call.state.context = &b.contexts[i].at(static_cast<size_t>(expert));
    if (w.listens()) {
      run_probed(op, w, i);
    } else if (op.step == 0 && op.patch >= 0) {
      run_chunk(op, b, i, expert);  // a cold start attends to fewer keys than the steps to come
    } else {
      const GraphKey key{b.id, op.chunk, static_cast<int>(i), op.patch, expert};
      graphs_.run(key, [&] { run_chunk(op, b, i, expert); });
    }
  }
  if (op.patch < 0) parallel_context_.ran_whole(b.id);
}

// Of the names of what happens inside of a denoiser.
std::string Executor::blocks_prefix(size_t expert) const {
  return expert == 0 ? "block." : str("block.", denoiser_.experts[expert].name, ".");
}

void Executor::record_input(const Op& op, const Walk& w, const BranchBuffers& call) const {
  const auto& b = w.buffers;
  const float time = w.steps[static_cast<size_t>(op.step)].time;
  RankRecorder recorder(w.callbacks.probes, str("step", op.step, "."));
  recorder.record(call.call, "model_in", model_input(b, op.patch), b.latent_stream);
  const auto latents = b.latents_of(op.patch);
  auto times = at::full({latents.size(0), latents.size(1), 1}, time, latents.options());
  if (b.given.known.defined()) times = times.masked_fill(b.given_of(op.patch).is_known, 0);
  recorder.record(call.call, "timestep", times, b.latent_stream);
}

// What happens inside of a denoiser is recorded at its first step; null at the others.
std::unique_ptr<Executor::Listening> Executor::listen(const Op& op, const Walk& w,
                                                      BranchBuffers& call) const {
  ENSURE(!graphs_.is_on());  // what is entered anew is not what they have recorded
  const int expert = w.steps[static_cast<size_t>(op.step)].expert;
  const auto first =
      std::find_if(w.steps.begin(), w.steps.end(), [&](auto& s) { return s.expert == expert; });
  if (op.chunk == 0) record_input(op, w, call);
  if (first - w.steps.begin() != op.step) return nullptr;
  const auto e = static_cast<size_t>(expert);
  auto here = std::make_unique<Listening>(call.call, RankRecorder(w.callbacks.probes, blocks_prefix(e)));
  denoiser_.experts[e].model->enter(call.call, call.state);
  return here;
}

void Executor::record_output(const Op& op, const Walk& w, const BranchBuffers& call) const {
  if (!ends_with(op.chunk)) return;
  RankRecorder step(w.callbacks.probes, str("step", op.step, "."));
  step.record(call.call, "model_out", call.prediction, w.buffers.latent_stream);
}

void Executor::run_probed(const Op& op, Walk& w, size_t branch) {
  auto& call = w.buffers.at(branch, op.patch);
  auto here = listen(op, w, call);
  run_chunk(op, w.buffers, branch, w.steps[static_cast<size_t>(op.step)].expert);
  here.reset();
  record_output(op, w, call);
}

// Noisy latents with all that the request gives beside them, for each of the branches of a pass.
at::Tensor Executor::model_input(const RequestBuffers& b, int patch) const {
  const auto given = b.given_of(patch);
  auto latents = b.latents_of(patch);
  if (b.input_divisors.defined()) latents = latents / at::index_select(b.input_divisors, 0, b.step);
  latents = given.with_known(latents);
  if (given.channels.defined()) latents = at::cat({latents, given.channels}, -1);
  const auto branches = std::ssize(b.passes[0]);
  return branches > 1 ? latents.repeat({1, branches, 1}) : latents;
}

void Executor::run_chunk(const Op& op, RequestBuffers& b, size_t branch, int expert) {
  const auto& chunk = route_[static_cast<size_t>(op.chunk)];
  const auto& e = denoiser_.experts[static_cast<size_t>(expert)];
  auto& call = b.at(branch, op.patch);
  nn::State& s = call.state;
  s.row = at::index_select(s.context->tables, 0, b.step).squeeze(0);
  if (op.chunk == 0) {
    s.control = b.given_of(op.patch).control;
    if (s.control.defined()) s.control = s.control.repeat({1, std::ssize(b.passes[0]), 1});
    e.model->embed(call.call, s, model_input(b, op.patch));
  } else if (route_[static_cast<size_t>(op.chunk) - 1].stage == chunk.stage) {
    s.x = call.outbox[static_cast<size_t>(op.chunk) - 1];
  } else {
    s.x = call.inbox[static_cast<size_t>(op.chunk)];
  }
  run_blocks(e, chunk, call);
  if (ends_with(op.chunk))
    put(call.prediction, e.model->head(call.call, s));
  else
    put(call.outbox[static_cast<size_t>(op.chunk)], s.x);
  s.x.reset(), s.row.reset(), s.control.reset();
}

void Executor::run_blocks(const Denoiser::Expert& expert, const plan::ModelChunk& chunk,
                          BranchBuffers& call) {
  std::vector<int> blocks(static_cast<size_t>(chunk.end - chunk.begin));
  std::iota(blocks.begin(), blocks.end(), chunk.begin);
  try {
    expert.memory->will_run(blocks);
    for (const int i : blocks) {
      expert.memory->before(i);
      expert.model->block(i, call.call, call.state);
    }
  } catch (const c10::OutOfMemoryError&) {
    // Where a recording ends here, what it fetched was never fetched.
    expert.memory->abandon();
    throw;
  }
}

}  // namespace atelier::pipeline
