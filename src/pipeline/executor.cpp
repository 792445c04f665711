#include "pipeline/executor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <numeric>

#include "base/check.h"
#include "base/error.h"

namespace atelier::pipeline {

using plan::Axis;
using plan::Op;

namespace {

// The call reports to the recorder while this object lives.
class Listening {
 public:
  Listening(nn::CallContext& call, nn::Recorder& recorder) : call_(call) { call_.probes = &recorder; }
  ~Listening() { call_.probes = nullptr; }
  Listening(const Listening&) = delete;

 private:
  nn::CallContext& call_;
};

at::Tensor like_hidden(const BranchBuffers& buffers, const nn::RequestContext& context,
                       at::TensorOptions options) {
  const int64_t n = std::accumulate(buffers.state.n.begin(), buffers.state.n.end(), int64_t{0});
  return at::empty({n, context.tables.size(1), context.width}, options);
}

}  // namespace

Executor::Executor(const Denoiser& denoiser, parallel::ParallelContext& parallel_context,
                   std::span<const plan::ModelChunk> route, at::TensorOptions options, GraphMode graphs)
    : denoiser_(denoiser),
      model_(*denoiser.experts.front().model),
      parallel_context_(parallel_context),
      route_(route.begin(), route.end()),
      options_(options),
      memory_(*denoiser.experts.front().memory),
      graphs_(graphs) {
  ENSURE(denoiser.experts.size() == 1);
}

int Executor::stage() const {
  return parallel_context_.mesh().index(Axis::kPipeline);
}

at::Tensor Executor::denoise(const Denoise& work, const StepCallbacks& callbacks) {
  prepare(work, callbacks);
  const int steps = static_cast<int>(work.sampler->timesteps().size());
  const auto lists = plan::schedule(route_, buffers_.patches, steps, parallel_context_.degrees().warmup);
  int step = -1, end = steps + 1;  // operations of the steps from `end` on are left out, by all ranks alike
  const auto begins = [&](int next) {
    if (callbacks.may_begin && !callbacks.may_begin(next)) end = next;
    return next < end;
  };
  for (const Op& op : lists[static_cast<size_t>(stage())]) {
    if (op.step >= end) continue;
    if (op.step > step) {
      if (step >= 0 && callbacks.on_step) callbacks.on_step(step);
      step = op.step;
      if (!begins(step)) continue;
    }
    perform(op, work, callbacks);
  }
  if (callbacks.on_step && step >= 0 && step < end) callbacks.on_step(step);
  sends_.clear();
  if (end <= steps || !begins(steps)) throw Error(Kind::kInterrupted, "cancelled");
  return gather(work);
}

void Executor::prepare(const Denoise& work, const StepCallbacks& callbacks) {
  const auto& d = parallel_context_.degrees();
  const int patches = plan::patch_count(d);
  if (buffers_.shape != shape_of(work, patches)) {
    graphs_.clear();
    buffers_ = {};
    // Whole before it counts: a request that runs out of memory here may be tried again.
    auto fresh = make_buffers(denoiser_, work, patches, parallel_context_, options_);
    for (auto& row : fresh.by_branch) {
      for (auto& buffers : row) {
        buffers.inbox.resize(route_.size());
        buffers.outbox.resize(route_.size());
        buffers.incoming.resize(route_.size() + 1);
        model_.enter(buffers.call, buffers.state);
      }
    }
    buffers_ = std::move(fresh);
  }
  parallel_context_.begin_request();
  for (auto& s : buffers_.samplers) s = work.sampler->clone();
  const int rank = parallel_context_.seq_rank();
  buffers_.latents.copy_(rows_of(work.latents, buffers_.latent_layout().held(rank, std::nullopt)));
  begin(work, callbacks);
}

void Executor::begin(const Denoise& work, const StepCallbacks& callbacks) {
  std::vector<nn::Conditioning> held;
  std::vector<nn::RequestContext> fresh;
  for (size_t b = 0; b < buffers_.branches.size(); ++b) {
    nn::CallContext call = buffers_.at(b, -1).call;
    RankRecorder recorder(callbacks.probes, call, "block.");
    if (callbacks.probes) call.probes = &recorder;
    auto& mine = held.emplace_back(work.branches[static_cast<size_t>(buffers_.branches[b])]);
    for (size_t i = 0, joint = 0; i < call.streams.size(); ++i) {
      if (static_cast<int>(i) == buffers_.latent_stream) continue;
      auto& tokens = mine.streams.at(joint++);
      ENSURE(tokens.size(0) == call.streams[i].patches.total);
      tokens = rows_of(tokens, call.streams[i].held(call.seq_rank, std::nullopt));
    }
    fresh.push_back(model_.begin(call, mine, work.sampler->timesteps()));
  }
  if (!fresh.empty() && fresh.front().prompt.defined()) begin_blocks(held, fresh);
  for (size_t b = 0; b < fresh.size(); ++b) {
    buffers_.contexts[b].assign_(fresh[b]);
    for (auto& buffers : buffers_.by_branch[b]) buffers.state.context = &buffers_.contexts[b];
  }
}

// Every block makes what it needs of the prompt, for all branches while its weights are there.
void Executor::begin_blocks(std::span<const nn::Conditioning> held, std::span<nn::RequestContext> contexts) {
  std::vector<int> blocks;
  for (const auto& chunk : plan::chunks_of(route_, stage())) {
    for (int i = chunk.begin; i < chunk.end; ++i) blocks.push_back(i);
  }
  memory_.will_run(blocks);
  for (const int i : blocks) {
    memory_.before(i);
    for (size_t b = 0; b < held.size(); ++b) model_.begin_block(i, held[b], contexts[b]);
  }
}

void Executor::perform(const Op& op, const Denoise& work, const StepCallbacks& callbacks) {
  switch (op.kind) {
    case Op::kEmbed:  // part of the first chunk's run
    case Op::kHead:   // part of the last chunk's run
      return;
    case Op::kRun:
      return run(op, callbacks);
    case Op::kSend:
      return send(op);
    case Op::kRecv:
      return receive(op);
    case Op::kSample:
      return sample(op, work, callbacks);
  }
}

void Executor::run(const Op& op, const StepCallbacks& callbacks) {
  buffers_.step.fill_(op.step);
  for (size_t b = 0; b < buffers_.branches.size(); ++b) {
    BranchBuffers& buffers = buffers_.at(b, op.patch);
    buffers.incoming[static_cast<size_t>(op.chunk)].wait();
    const bool listened = callbacks.probes;
    RankRecorder recorder(callbacks.probes, buffers.call, "block.");
    RankRecorder inputs(callbacks.probes, buffers.call, str("step", op.step, "."));
    if (listened && op.chunk == 0)
      inputs.record("model_in", buffers_.latents_of(op.patch), buffers_.latent_stream);
    if (listened && op.step == 0) {
      ENSURE(!graphs_.is_on());  // what is entered anew is not what they have recorded
      const Listening listening(buffers.call, recorder);
      model_.enter(buffers.call, buffers.state);
      run_blocks(buffers, b, op.chunk, op.patch);
    } else if (op.step == 0 && op.patch >= 0) {
      run_blocks(buffers, b, op.chunk,
                 op.patch);  // a cold start attends to fewer keys than the steps to come
    } else {
      graphs_.run(str(op.chunk, " ", b, " ", op.patch), [&] { run_blocks(buffers, b, op.chunk, op.patch); });
    }
    const bool last = op.chunk + 1 == static_cast<int>(route_.size());
    if (listened && last) inputs.record("model_out", buffers.prediction, buffers_.latent_stream);
  }
}

void Executor::run_blocks(BranchBuffers& buffers, size_t branch, int chunk, int patch) {
  const auto& part = route_[static_cast<size_t>(chunk)];
  nn::State& s = buffers.state;
  s.row = at::index_select(buffers_.contexts[branch].tables, 0, buffers_.step).squeeze(0);
  if (chunk == 0)
    model_.embed(buffers.call, s, buffers_.latents_of(patch));
  else if (route_[static_cast<size_t>(chunk) - 1].stage == part.stage)
    s.x = buffers.outbox[static_cast<size_t>(chunk) - 1];
  else
    s.x = buffers.inbox[static_cast<size_t>(chunk)];
  std::vector<int> blocks(static_cast<size_t>(part.end - part.begin));
  std::iota(blocks.begin(), blocks.end(), part.begin);
  memory_.will_run(blocks);
  for (const int i : blocks) {
    memory_.before(i);
    model_.block(i, buffers.call, s);
  }
  const bool last = chunk + 1 == static_cast<int>(route_.size());
  if (last)
    nn::assign_stable_(buffers.prediction, model_.head(buffers.call, s));
  else
    nn::assign_stable_(buffers.outbox[static_cast<size_t>(chunk)], s.x);
}

void Executor::send(const Op& op) {
  const bool last = op.chunk + 1 == static_cast<int>(route_.size());
  auto* hop = parallel_context_.hop({stage(), op.peer_stage});
  for (size_t b = 0; b < buffers_.branches.size(); ++b) {
    BranchBuffers& buffers = buffers_.at(b, op.patch);
    const auto& message = last ? buffers.prediction : buffers.outbox[static_cast<size_t>(op.chunk)];
    sends_.push_back(hop->send(message.contiguous(), 1));
  }
  // Destroying a send waits for it; by the schedule, sends as old as these have been received.
  const size_t most = 4 * buffers_.branches.size() * static_cast<size_t>(buffers_.patches);
  if (sends_.size() > most) sends_.erase(sends_.begin(), sends_.end() - static_cast<std::ptrdiff_t>(most));
}

void Executor::receive(const Op& op) {
  const bool last = op.chunk + 1 == static_cast<int>(route_.size());
  auto* hop = parallel_context_.hop({op.peer_stage, stage()});
  for (size_t b = 0; b < buffers_.branches.size(); ++b) {
    BranchBuffers& buffers = buffers_.at(b, op.patch);
    auto& buffer = last ? buffers.prediction : buffers.inbox[static_cast<size_t>(op.chunk) + 1];
    if (!buffer.defined()) {
      const auto latents = buffers_.latents_of(op.patch);
      buffer =
          last ? at::empty(latents.sizes(), options_) : like_hidden(buffers, buffers_.contexts[b], options_);
    }
    buffers.incoming[static_cast<size_t>(op.chunk) + 1] = hop->recv(buffer, 0);
  }
}

at::Tensor Executor::guided(const Op& op, const Denoise& work) {
  for (size_t b = 0; b < buffers_.branches.size(); ++b) buffers_.at(b, op.patch).incoming.back().wait();
  const auto acc_dtype = work.latents.scalar_type();
  const auto mine = buffers_.at(0, op.patch).prediction.to(acc_dtype);
  if (work.branches.size() < 2) return mine;
  if (buffers_.branches.size() == 2)
    return sampling::guide(mine, buffers_.at(1, op.patch).prediction.to(acc_dtype), work.cfg);
  auto both = at::empty({2 * mine.numel()}, mine.options());
  const int64_t split[] = {mine.numel(), mine.numel()};
  parallel_context_.cfg()->all_gather(both, mine.contiguous(), split).wait();
  const auto part = [&](int i) { return both.narrow(0, i * mine.numel(), mine.numel()).view(mine.sizes()); };
  return sampling::guide(part(0), part(1), work.cfg);
}

void Executor::sample(const Op& op, const Denoise& work, const StepCallbacks& callbacks) {
  const auto prediction = guided(op, work);
  auto latents = buffers_.latents_of(op.patch);
  const int first = op.patch < 0 ? 0 : op.patch, last = op.patch < 0 ? buffers_.patches - 1 : op.patch;
  for (int p = first; p <= last; ++p) {
    const Range rows = buffers_.rows[static_cast<size_t>(p)];
    auto x = buffers_.latents_of(p);
    const int64_t offset = op.patch < 0 ? rows.begin : 0;
    x.copy_(
        buffers_.samplers[static_cast<size_t>(p)]->step(prediction.narrow(0, offset, rows.size), op.step, x));
  }
  if (!callbacks.probes) return;
  nn::CallContext call = buffers_.at(0, op.patch).call;
  call.branch = 0;  // what is guided belongs to none
  RankRecorder recorder(callbacks.probes, call, str("step", op.step, "."));
  recorder.record("guided", prediction, buffers_.latent_stream);
  recorder.record("latents", latents, buffers_.latent_stream);
}

at::Tensor Executor::gather(const Denoise& work) {
  const bool all_decode = parallel_context_.picture_parts() > 1;
  if (!starts() && !all_decode) return {};
  at::Tensor whole = at::empty(work.latents.sizes(), buffers_.latents.options());
  if (starts()) {
    const auto& latent = buffers_.latent_layout();
    const int64_t width = work.latents.size(1) * work.latents.size(2);
    at::Tensor all = buffers_.latents;
    if (auto* group = parallel_context_.sequence()) {
      std::vector<int64_t> split;
      for (int r = 0; r < group->size(); ++r) split.push_back(latent.count(r, std::nullopt) * width);
      all = at::empty({work.latents.numel()}, buffers_.latents.options());
      group->all_gather(all, buffers_.latents, split).wait();
      all = all.view(work.latents.sizes());
    }
    int64_t row = 0;
    for (int r = 0; r < parallel_context_.seq_parts(); ++r) {
      for (const Range& to : latent.held(r, std::nullopt)) {
        whole.narrow(0, to.begin, to.size).copy_(all.narrow(0, row, to.size));
        row += to.size;
      }
    }
  }
  if (plan::stages_of(route_) > 1 && all_decode) parallel_context_.replica()->broadcast(whole, 0);
  return whole;
}

}  // namespace atelier::pipeline
