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

// New values into the old memory where the shapes agree: recorded graphs read from there.
void put(at::Tensor& to, const at::Tensor& from) {
  const bool has_room = to.defined() && from.defined() && to.sizes() == from.sizes();
  if (!has_room) {
    to = from;
  } else if (to.data_ptr() != from.data_ptr()) {
    to.copy_(from);
  }
}

// The frame reports to the recorder while this object lives.
class Listening {
 public:
  Listening(nn::Frame& frame, nn::Recorder& recorder) : frame_(frame) { frame_.taps = &recorder; }
  ~Listening() { frame_.taps = nullptr; }
  Listening(const Listening&) = delete;

 private:
  nn::Frame& frame_;
};

at::Tensor like_hidden(const Lane& lane, const nn::Context& context, at::TensorOptions options) {
  const int64_t n = std::accumulate(lane.state.n.begin(), lane.state.n.end(), int64_t{0});
  return at::empty({n, context.tables.size(1), context.width}, options);
}

}  // namespace

Executor::Executor(const models::Family& family, nn::Model& model, parallel::Assembly& assembly,
                   std::span<const plan::Leg> route, at::TensorOptions options, GraphMode graphs,
                   BlockFetcher* fetcher)
    : family_(family),
      model_(model),
      assembly_(assembly),
      route_(route.begin(), route.end()),
      options_(options),
      fetcher_(fetcher),
      graphs_(graphs) {}

int Executor::stage() const {
  return assembly_.mesh().index(Axis::kStage);
}

at::Tensor Executor::denoise(const Denoise& work, const Watch& watch) {
  prepare(work, watch);
  const int steps = static_cast<int>(work.sampler->timesteps().size());
  const auto lists = plan::schedule(route_, lanes_.patches, steps, assembly_.degrees().warmup);
  int step = -1;
  for (const Op& op : lists[static_cast<size_t>(stage())]) {
    if (op.step > step) {
      if (step >= 0 && watch.on_step) watch.on_step(step);
      step = op.step;
      if (watch.stop.stop_requested()) throw Error(Kind::kInterrupted, "interrupted while drawing");
    }
    perform(op, work, watch);
  }
  if (watch.on_step && step >= 0) watch.on_step(step);
  sends_.clear();
  return gather(work);
}

void Executor::prepare(const Denoise& work, const Watch& watch) {
  const auto& d = assembly_.degrees();
  const int patches = plan::patch_count(d);
  if (lanes_.shape != shape_of(work, patches)) {
    graphs_.clear();
    lanes_ = {};
    // Whole before it counts: a request that runs out of memory here may be tried again.
    auto fresh = make_lanes(family_, work, patches, assembly_, options_);
    for (auto& row : fresh.lanes) {
      for (auto& lane : row) {
        lane.inbox.resize(route_.size());
        lane.outbox.resize(route_.size());
        lane.incoming.resize(route_.size() + 1);
        model_.enter(lane.frame, lane.state);
      }
    }
    lanes_ = std::move(fresh);
  }
  assembly_.begin_request();
  for (auto& s : lanes_.samplers) s = work.sampler->clone();
  const int rank = assembly_.seq_rank();
  lanes_.latents.copy_(take(work.latents, lanes_.whole.streams[kImageStream].held(rank, std::nullopt)));
  for (size_t b = 0; b < lanes_.branches.size(); ++b) {
    const auto& branch = work.branches[static_cast<size_t>(lanes_.branches[b])];
    nn::Frame frame = lanes_.lane(b, -1).frame;
    RankRecorder recorder(watch.taps, frame, "block.");
    if (watch.taps && lanes_.branches[b] == 0) frame.taps = &recorder;
    const nn::Prompt prompt{take(branch.text, frame.streams[kTextStream].held(rank, std::nullopt)),
                            branch.pooled, work.guidance};
    auto fresh = model_.begin(frame, prompt, work.sampler->timesteps());
    auto& context = lanes_.contexts[b];
    put(context.tables, fresh.tables);
    put(context.text, fresh.text);
    context.width = fresh.width;
    for (auto& lane : lanes_.lanes[b]) lane.state.given = &context;
  }
}

void Executor::perform(const Op& op, const Denoise& work, const Watch& watch) {
  switch (op.kind) {
    case Op::kEmbed:  // part of the first leg's run
    case Op::kHead:   // part of the last leg's run
      return;
    case Op::kRun:
      return run(op, watch);
    case Op::kSend:
      return send(op);
    case Op::kRecv:
      return receive(op);
    case Op::kSample:
      return sample(op, work, watch);
  }
}

void Executor::run(const Op& op, const Watch& watch) {
  lanes_.step.fill_(op.step);
  for (size_t b = 0; b < lanes_.branches.size(); ++b) {
    Lane& lane = lanes_.lane(b, op.patch);
    lane.incoming[static_cast<size_t>(op.leg)].wait();
    const bool listened = watch.taps && lanes_.branches[b] == 0;
    RankRecorder recorder(watch.taps, lane.frame, "block.");
    RankRecorder inputs(watch.taps, lane.frame, str("step", op.step, "."));
    if (listened && op.leg == 0) inputs.record("model_in", lanes_.latents_of(op.patch), kImageStream);
    if (listened && op.step == 0) {
      ENSURE(!graphs_.is_on());  // what is entered anew is not what they have recorded
      const Listening listening(lane.frame, recorder);
      model_.enter(lane.frame, lane.state);
      run_blocks(lane, b, op.leg, op.patch);
    } else if (op.step == 0 && op.patch >= 0) {
      run_blocks(lane, b, op.leg, op.patch);  // a cold start attends to fewer keys than the steps to come
    } else {
      graphs_.run(str(op.leg, " ", b, " ", op.patch), [&] { run_blocks(lane, b, op.leg, op.patch); });
    }
    const bool last = op.leg + 1 == static_cast<int>(route_.size());
    if (listened && last) inputs.record("model_out", lane.prediction, kImageStream);
  }
}

void Executor::run_blocks(Lane& lane, size_t branch, int leg, int patch) {
  const auto& part = route_[static_cast<size_t>(leg)];
  nn::State& s = lane.state;
  s.row = at::index_select(lanes_.contexts[branch].tables, 0, lanes_.step).squeeze(0);
  if (leg == 0)
    model_.embed(lane.frame, s, lanes_.latents_of(patch));
  else if (route_[static_cast<size_t>(leg) - 1].stage == part.stage)
    s.x = lane.outbox[static_cast<size_t>(leg) - 1];
  else
    s.x = lane.inbox[static_cast<size_t>(leg)];
  std::vector<int> blocks(static_cast<size_t>(part.end - part.begin));
  std::iota(blocks.begin(), blocks.end(), part.begin);
  if (fetcher_) fetcher_->start(blocks);
  for (const int i : blocks) {
    if (fetcher_) fetcher_->before(i);
    model_.block(i, lane.frame, s);
  }
  const bool last = leg + 1 == static_cast<int>(route_.size());
  if (last)
    put(lane.prediction, model_.head(lane.frame, s));
  else
    put(lane.outbox[static_cast<size_t>(leg)], s.x);
}

void Executor::send(const Op& op) {
  const bool last = op.leg + 1 == static_cast<int>(route_.size());
  auto* hop = assembly_.hop({stage(), op.peer_stage});
  for (size_t b = 0; b < lanes_.branches.size(); ++b) {
    Lane& lane = lanes_.lane(b, op.patch);
    const auto& message = last ? lane.prediction : lane.outbox[static_cast<size_t>(op.leg)];
    sends_.push_back(hop->send(message.contiguous(), 1));
  }
  // Letting go of a send waits for it; the schedule promises that so old ones have been received.
  const size_t most = 4 * lanes_.branches.size() * static_cast<size_t>(lanes_.patches);
  if (sends_.size() > most) sends_.erase(sends_.begin(), sends_.end() - static_cast<std::ptrdiff_t>(most));
}

void Executor::receive(const Op& op) {
  const bool last = op.leg + 1 == static_cast<int>(route_.size());
  auto* hop = assembly_.hop({op.peer_stage, stage()});
  for (size_t b = 0; b < lanes_.branches.size(); ++b) {
    Lane& lane = lanes_.lane(b, op.patch);
    auto& buffer = last ? lane.prediction : lane.inbox[static_cast<size_t>(op.leg) + 1];
    if (!buffer.defined()) {
      const auto latents = lanes_.latents_of(op.patch);
      buffer = last ? at::empty(latents.sizes(), options_) : like_hidden(lane, lanes_.contexts[b], options_);
    }
    lane.incoming[static_cast<size_t>(op.leg) + 1] = hop->recv(buffer, 0);
  }
}

at::Tensor Executor::guided(const Op& op, const Denoise& work) {
  for (size_t b = 0; b < lanes_.branches.size(); ++b) lanes_.lane(b, op.patch).incoming.back().wait();
  const auto wide = work.latents.scalar_type();
  const auto mine = lanes_.lane(0, op.patch).prediction.to(wide);
  if (work.branches.size() < 2) return mine;
  if (lanes_.branches.size() == 2)
    return sampling::guide(mine, lanes_.lane(1, op.patch).prediction.to(wide), work.cfg);
  auto both = at::empty({2 * mine.numel()}, mine.options());
  const int64_t split[] = {mine.numel(), mine.numel()};
  assembly_.guidance()->all_gather(both, mine.contiguous(), split).wait();
  const auto part = [&](int i) { return both.narrow(0, i * mine.numel(), mine.numel()).view(mine.sizes()); };
  return sampling::guide(part(0), part(1), work.cfg);
}

void Executor::sample(const Op& op, const Denoise& work, const Watch& watch) {
  const auto prediction = guided(op, work);
  auto latents = lanes_.latents_of(op.patch);
  const int first = op.patch < 0 ? 0 : op.patch, last = op.patch < 0 ? lanes_.patches - 1 : op.patch;
  for (int p = first; p <= last; ++p) {
    const Range rows = lanes_.rows[static_cast<size_t>(p)];
    auto x = lanes_.latents_of(p);
    const int64_t offset = op.patch < 0 ? rows.begin : 0;
    x.copy_(
        lanes_.samplers[static_cast<size_t>(p)]->step(prediction.narrow(0, offset, rows.size), op.step, x));
  }
  if (!watch.taps) return;
  RankRecorder recorder(watch.taps, lanes_.lane(0, op.patch).frame, str("step", op.step, "."));
  recorder.record("guided", prediction, kImageStream);
  recorder.record("latents", latents, kImageStream);
}

at::Tensor Executor::gather(const Denoise& work) {
  const bool all_decode = assembly_.picture_parts() > 1;
  if (!starts() && !all_decode) return {};
  at::Tensor whole = at::empty(work.latents.sizes(), lanes_.latents.options());
  if (starts()) {
    const auto& image = lanes_.whole.streams[kImageStream];
    const int64_t width = work.latents.size(1) * work.latents.size(2);
    at::Tensor all = lanes_.latents;
    if (auto* group = assembly_.sequence()) {
      std::vector<int64_t> split;
      for (int r = 0; r < group->size(); ++r) split.push_back(image.count(r, std::nullopt) * width);
      all = at::empty({work.latents.numel()}, lanes_.latents.options());
      group->all_gather(all, lanes_.latents, split).wait();
      all = all.view(work.latents.sizes());
    }
    int64_t row = 0;
    for (int r = 0; r < assembly_.seq_parts(); ++r) {
      for (const Range& to : image.held(r, std::nullopt)) {
        whole.narrow(0, to.begin, to.size).copy_(all.narrow(0, row, to.size));
        row += to.size;
      }
    }
  }
  if (plan::stages_of(route_) > 1 && all_decode) assembly_.replica()->broadcast(whole, 0);
  return whole;
}

}  // namespace atelier::pipeline
