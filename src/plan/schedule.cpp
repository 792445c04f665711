// List scheduling on integer time: each stage, when free, starts the patch that can start first, ties to the
// later chunk.
#include "plan/schedule.h"

#include <algorithm>

#include "base/check.h"

namespace atelier::plan {
namespace {

constexpr int64_t kNever = -1;

class Scheduler {
 public:
  Scheduler(std::span<const ModelChunk> route, int patches, int steps, int warmup);
  std::vector<std::vector<Op>> run();

 private:
  struct Hop {  // the output of a chunk, finished at `time` and not yet handed on
    int64_t time = kNever;
    int chunk = 0, item = 0;
  };
  struct Start {  // the next item of a chunk, and when it may start
    int64_t time = kNever;
    int chunk = 0;
  };

  // Items are (step, patch) in order: whole sequences first, then patches.
  Op op(Op::Code kind, int chunk, int item) const;
  int before(int item) const;  // the item whose sampling this one waits for; -1: none
  int64_t duration(int chunk, int item) const;
  int stage(int chunk) const { return route_[chunk].stage; }
  int64_t& ready(int chunk, int item) {
    return ready_[chunk * items_ + item];
  }  // chunk == chunks_: for sampling

  Hop* next_hop();
  Start next_start();
  void hand_on(Hop& hop);
  void start(const Start& start);
  void sample_until(int item);

  std::span<const ModelChunk> route_;
  int patches_, warmup_, chunks_, items_;
  int sampled_ = 0;             // items [0, sampled_) have their kSample in the list
  std::vector<int> next_;       // per chunk: the item it runs next
  std::vector<int64_t> ready_;  // per chunk and item: when its input is there
  std::vector<int64_t> free_;   // per stage: when its current run ends
  std::vector<Hop> hops_;       // per stage: at most one, that of its current run
  std::vector<std::vector<Op>> lists_;
};

Scheduler::Scheduler(std::span<const ModelChunk> route, int patches, int steps, int warmup)
    : route_(route),
      patches_(patches),
      warmup_(patches == 1 ? steps : std::min(warmup, steps)),
      chunks_(static_cast<int>(route.size())),
      items_(warmup_ + (steps - warmup_) * patches),
      next_(chunks_, 0),
      ready_((chunks_ + 1) * static_cast<int64_t>(items_), kNever),
      free_(stages_of(route), 0),
      hops_(free_.size()),
      lists_(free_.size()) {
  for (int item = 0; item < items_; ++item) {
    if (before(item) < 0) ready(0, item) = 0;
  }
}

Op Scheduler::op(Op::Code kind, int chunk, int item) const {
  if (item < warmup_) return {kind, chunk, -1, item};
  return {kind, chunk, (item - warmup_) % patches_, warmup_ + (item - warmup_) / patches_};
}

int Scheduler::before(int item) const {
  if (item < warmup_) return item - 1;
  return item < warmup_ + patches_ ? warmup_ - 1 : item - patches_;
}

int64_t Scheduler::duration(int chunk, int item) const {
  return static_cast<int64_t>(route_[chunk].end - route_[chunk].begin) * (item < warmup_ ? patches_ : 1);
}

Scheduler::Hop* Scheduler::next_hop() {
  Hop* first = nullptr;
  for (Hop& hop : hops_) {
    if (hop.time != kNever && (!first || hop.time < first->time)) first = &hop;
  }
  return first;
}

Scheduler::Start Scheduler::next_start() {
  Start first;
  for (int chunk = chunks_ - 1; chunk >= 0; --chunk) {
    if (next_[chunk] == items_ || ready(chunk, next_[chunk]) == kNever) continue;
    const int64_t time = std::max(free_[stage(chunk)], ready(chunk, next_[chunk]));
    if (first.time == kNever || time < first.time) first = {time, chunk};
  }
  return first;
}

// The send and its receive enter the two lists together: this is what makes them free of deadlock.
void Scheduler::hand_on(Hop& hop) {
  const int to_chunk = hop.chunk + 1 < chunks_ ? hop.chunk + 1 : 0;
  if (stage(hop.chunk) != stage(to_chunk)) {
    Op send = op(Op::kSend, hop.chunk, hop.item), recv = op(Op::kRecv, hop.chunk, hop.item);
    send.peer_stage = stage(to_chunk);
    recv.peer_stage = stage(hop.chunk);
    lists_[stage(hop.chunk)].push_back(send);
    lists_[stage(to_chunk)].push_back(recv);
  }
  ready(hop.chunk + 1, hop.item) = hop.time;
  if (hop.chunk + 1 == chunks_) {
    for (int item = hop.item + 1; item < items_ && before(item) <= hop.item; ++item) {
      if (before(item) == hop.item) ready(0, item) = hop.time;
    }
  }
  hop.time = kNever;
}

// Late, just before the patch enters again, so that a prediction that is behind its time holds up nothing
// else.
void Scheduler::sample_until(int item) {
  for (; sampled_ <= item; ++sampled_) lists_[stage(0)].push_back(op(Op::kSample, 0, sampled_));
}

void Scheduler::start(const Start& start) {
  const int chunk = start.chunk, item = next_[chunk]++;
  auto& list = lists_[stage(chunk)];
  if (chunk == 0) {
    sample_until(before(item));
    list.push_back(op(Op::kEmbed, chunk, item));
  }
  list.push_back(op(Op::kRun, chunk, item));
  if (chunk + 1 == chunks_) list.push_back(op(Op::kHead, chunk, item));
  free_[stage(chunk)] = start.time + duration(chunk, item);
  hops_[stage(chunk)] = {free_[stage(chunk)], chunk, item};
}

std::vector<std::vector<Op>> Scheduler::run() {
  while (true) {
    Hop* hop = next_hop();
    const Start next = next_start();
    if (hop && (next.time == kNever || hop->time <= next.time)) {
      hand_on(*hop);
    } else if (next.time != kNever) {
      start(next);
    } else {
      break;
    }
  }
  sample_until(items_ - 1);
  return std::move(lists_);
}

}  // namespace

std::vector<std::vector<Op>> schedule(std::span<const ModelChunk> route, int patches, int steps, int warmup) {
  ENSURE(!route.empty() && patches >= 1 && steps >= 1 && warmup >= 0);
  return Scheduler(route, patches, steps, warmup).run();
}

std::vector<Direction> directions(std::span<const ModelChunk> route) {
  std::vector<Direction> found;
  for (size_t chunk = 0; chunk < route.size(); ++chunk) {
    const Direction hop{route[chunk].stage, route[(chunk + 1) % route.size()].stage};
    if (hop.from != hop.to && std::find(found.begin(), found.end(), hop) == found.end()) found.push_back(hop);
  }
  return found;
}

}  // namespace atelier::plan
