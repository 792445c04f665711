// List scheduling on integer time: each stage, when free, starts the patch that can start first, ties to the
// later leg.
#include "plan/schedule.h"

#include <algorithm>

#include "base/check.h"

namespace atelier::plan {
namespace {

constexpr int64_t kNever = -1;

class Scheduler {
 public:
  Scheduler(std::span<const Leg> route, int patches, int steps, int warmup);
  std::vector<std::vector<Op>> run();

 private:
  struct Hop {  // the output of a leg, finished at `time` and not yet handed on
    int64_t time = kNever;
    int leg = 0, item = 0;
  };
  struct Start {  // the next item of a leg, and when it may start
    int64_t time = kNever;
    int leg = 0;
  };

  // Items are (step, patch) in order: whole sequences first, then patches.
  Op op(Op::Kind kind, int leg, int item) const;
  int before(int item) const;  // the item whose sampling this one waits for; -1: none
  int64_t duration(int leg, int item) const;
  int stage(int leg) const { return route_[leg].stage; }
  int64_t& ready(int leg, int item) { return ready_[leg * items_ + item]; }  // leg == legs_: for sampling

  Hop* next_hop();
  Start next_start();
  void hand_on(Hop& hop);
  void start(const Start& start);
  void sample_until(int item);

  std::span<const Leg> route_;
  int patches_, warmup_, legs_, items_;
  int sampled_ = 0;             // items [0, sampled_) have their kSample in the list
  std::vector<int> next_;       // per leg: the item it runs next
  std::vector<int64_t> ready_;  // per leg and item: when its input is there
  std::vector<int64_t> free_;   // per stage: when its current run ends
  std::vector<Hop> hops_;       // per stage: at most one, that of its current run
  std::vector<std::vector<Op>> lists_;
};

Scheduler::Scheduler(std::span<const Leg> route, int patches, int steps, int warmup)
    : route_(route),
      patches_(patches),
      warmup_(patches == 1 ? steps : std::min(warmup, steps)),
      legs_(static_cast<int>(route.size())),
      items_(warmup_ + (steps - warmup_) * patches),
      next_(legs_, 0),
      ready_((legs_ + 1) * static_cast<int64_t>(items_), kNever),
      free_(stages_of(route), 0),
      hops_(free_.size()),
      lists_(free_.size()) {
  for (int item = 0; item < items_; ++item) {
    if (before(item) < 0) ready(0, item) = 0;
  }
}

Op Scheduler::op(Op::Kind kind, int leg, int item) const {
  if (item < warmup_) return {kind, leg, -1, item};
  return {kind, leg, (item - warmup_) % patches_, warmup_ + (item - warmup_) / patches_};
}

int Scheduler::before(int item) const {
  if (item < warmup_) return item - 1;
  return item < warmup_ + patches_ ? warmup_ - 1 : item - patches_;
}

int64_t Scheduler::duration(int leg, int item) const {
  return static_cast<int64_t>(route_[leg].end - route_[leg].begin) * (item < warmup_ ? patches_ : 1);
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
  for (int leg = legs_ - 1; leg >= 0; --leg) {
    if (next_[leg] == items_ || ready(leg, next_[leg]) == kNever) continue;
    const int64_t time = std::max(free_[stage(leg)], ready(leg, next_[leg]));
    if (first.time == kNever || time < first.time) first = {time, leg};
  }
  return first;
}

// The send and its receive enter the two lists together: this is what makes them free of deadlock.
void Scheduler::hand_on(Hop& hop) {
  const int to_leg = hop.leg + 1 < legs_ ? hop.leg + 1 : 0;
  if (stage(hop.leg) != stage(to_leg)) {
    Op send = op(Op::kSend, hop.leg, hop.item), recv = op(Op::kRecv, hop.leg, hop.item);
    send.peer_stage = stage(to_leg);
    recv.peer_stage = stage(hop.leg);
    lists_[stage(hop.leg)].push_back(send);
    lists_[stage(to_leg)].push_back(recv);
  }
  ready(hop.leg + 1, hop.item) = hop.time;
  if (hop.leg + 1 == legs_) {
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
  const int leg = start.leg, item = next_[leg]++;
  auto& list = lists_[stage(leg)];
  if (leg == 0) {
    sample_until(before(item));
    list.push_back(op(Op::kEmbed, leg, item));
  }
  list.push_back(op(Op::kRun, leg, item));
  if (leg + 1 == legs_) list.push_back(op(Op::kHead, leg, item));
  free_[stage(leg)] = start.time + duration(leg, item);
  hops_[stage(leg)] = {free_[stage(leg)], leg, item};
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

std::vector<std::vector<Op>> schedule(std::span<const Leg> route, int patches, int steps, int warmup) {
  ENSURE(!route.empty() && patches >= 1 && steps >= 1 && warmup >= 0);
  return Scheduler(route, patches, steps, warmup).run();
}

std::vector<Direction> directions(std::span<const Leg> route) {
  std::vector<Direction> found;
  for (size_t leg = 0; leg < route.size(); ++leg) {
    const Direction hop{route[leg].stage, route[(leg + 1) % route.size()].stage};
    if (hop.from != hop.to && std::find(found.begin(), found.end(), hop) == found.end()) found.push_back(hop);
  }
  return found;
}

}  // namespace atelier::plan
