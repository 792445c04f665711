// A stage per list, a clock per stage, a queue per direction; round and round until all lists end or none can
// move.
#include "plan/simulate.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/error.h"

namespace atelier::plan {
namespace {

constexpr double kUnknown = -1;

std::string describe(const Op& op) {
  constexpr const char* kNames[] = {"embed", "run", "send", "recv", "head", "sample"};
  std::string text = str(kNames[op.kind], " chunk ", op.chunk, " patch ", op.patch, " step ", op.step);
  if (op.peer_stage >= 0) text += str(op.kind == Op::kSend ? " to stage " : " from stage ", op.peer_stage);
  return text;
}

// The messages of one direction: the n-th send meets the n-th receive.
struct Lane {
  std::vector<Op> sends, recvs;
  std::vector<double> sent, posted;  // when each was started
  size_t met = 0;
  double idle_since = 0;
};

class Machine {
 public:
  Machine(std::span<const ModelChunk> route, std::span<const std::vector<Op>> lists, const Costs& costs,
          SendMode mode);
  Simulation run();

 private:
  enum Verdict : uint8_t { kDone, kWaits };

  int slots() const { return patches_ + 1; }
  int slot(const Op& op) const { return op.chunk * slots() + op.patch + 1; }
  int item(const Op& op) const { return (op.chunk * steps_ + op.step) * slots() + op.patch + 1; }
  double share(const Op& op) const { return op.patch < 0 ? 1.0 : 1.0 / patches_; }
  int last_chunk() const { return static_cast<int>(route_.size()) - 1; }
  int target(int chunk) const { return route_[chunk == last_chunk() ? 0 : chunk + 1].stage; }
  bool travels(int chunk) const { return target(chunk) != route_[chunk].stage; }
  Lane& lane(int from, int to) { return lanes_[from * stages() + to]; }
  int stages() const { return static_cast<int>(lists_.size()); }

  void require(bool holds, const Op& op, const char* rule);
  void check_place(int stage, const Op& op);
  void work(int stage, double duration);
  Verdict take_input(int stage, const Op& op);
  void meet(Lane& lane, double hop);
  Verdict step(int stage);
  Verdict embed(int stage, const Op& op);
  Verdict run_chunk(int stage, const Op& op);
  Verdict send(int stage, const Op& op);
  Verdict recv(int stage, const Op& op);
  Verdict head(int stage, const Op& op);
  Verdict sample(int stage, const Op& op);
  Verdict post(int stage, const Op& op, Lane& lane);
  Verdict drain(int stage);
  std::string stuck() const;
  void check_complete();

  std::span<const ModelChunk> route_;
  std::span<const std::vector<Op>> lists_;
  Costs costs_;
  SendMode mode_;
  int patches_ = 1, steps_ = 0;
  Simulation result_;
  std::vector<size_t> at_;       // per stage: position in its list
  std::vector<char> posted_;     // per stage: the operation it waits in is already in its lane
  std::vector<double> clock_;    // per stage
  std::vector<Lane> lanes_;      // per pair of stages
  std::vector<double> arrival_;  // per item: when the output of its chunk is on the stage that reads it
  std::vector<char> embedded_, ran_, predicted_, sampled_;  // per item
  std::vector<char> full_;         // per slot: a received message nobody has read yet
  std::vector<int> in_send_slot_;  // per slot: the item last sent from it, -1: none
  std::vector<int> last_ran_;      // per chunk: the last (step, patch) as one number
};

Machine::Machine(std::span<const ModelChunk> route, std::span<const std::vector<Op>> lists,
                 const Costs& costs, SendMode mode)
    : route_(route), lists_(lists), costs_(costs), mode_(mode) {
  ENSURE(!route.empty() && lists.size() == static_cast<size_t>(stages_of(route)));
  if (costs_.chunks.empty()) {
    for (const ModelChunk& chunk : route) costs_.chunks.push_back(chunk.end - chunk.begin);
  }
  for (const auto& list : lists) {
    for (const Op& op : list) {
      ENSURE(op.chunk >= 0 && op.chunk <= last_chunk() && op.patch >= -1 && op.step >= 0);
      patches_ = std::max(patches_, op.patch + 1);
      steps_ = std::max(steps_, op.step + 1);
    }
  }
  const size_t items = route.size() * steps_ * slots(), all_slots = route.size() * slots();
  at_.assign(stages(), 0);
  posted_.assign(stages(), 0);
  clock_.assign(stages(), 0);
  result_.busy.assign(stages(), 0);
  lanes_.resize(stages() * stages());
  arrival_.assign(items, kUnknown);
  for (auto* flags : {&embedded_, &ran_, &predicted_, &sampled_}) flags->assign(items, 0);
  full_.assign(all_slots, 0);
  in_send_slot_.assign(all_slots, -1);
  last_ran_.assign(route.size(), -1);
}

void Machine::require(bool holds, const Op& op, const char* rule) {
  if (!holds && result_.fault.empty()) result_.fault = describe(op) + ": " + rule;
}

void Machine::check_place(int stage, const Op& op) {
  const int home = op.kind == Op::kRecv ? target(op.chunk) : route_[op.chunk].stage;
  require(stage == home, op, "stands in the list of another stage");
  if (op.kind == Op::kEmbed || op.kind == Op::kSample) require(op.chunk == 0, op, "belongs to chunk 0");
  if (op.kind == Op::kHead) require(op.chunk == last_chunk(), op, "belongs to the last chunk");
  if (op.kind == Op::kSend)
    require(travels(op.chunk) && op.peer_stage == target(op.chunk), op, "names a wrong peer");
  if (op.kind == Op::kRecv) {
    require(travels(op.chunk) && op.peer_stage == route_[op.chunk].stage, op, "names a wrong peer");
  }
}

void Machine::work(int stage, double duration) {
  clock_[stage] += duration;
  result_.busy[stage] += duration;
}

// op names the chunk whose output is wanted.
Machine::Verdict Machine::take_input(int stage, const Op& op) {
  if (travels(op.chunk)) require(full_[slot(op)], op, "is read before its receive was started");
  if (arrival_[item(op)] == kUnknown) {
    require(travels(op.chunk), op, "is read before it was computed");
    return kWaits;
  }
  full_[slot(op)] = 0;
  clock_[stage] = std::max(clock_[stage], arrival_[item(op)]);
  return kDone;
}

Machine::Verdict Machine::embed(int stage, const Op& op) {
  if (op.step > 0) {
    Op own = op, whole = op;
    own.step = whole.step = op.step - 1;
    whole.patch = -1;
    require(sampled_[item(own)] || sampled_[item(whole)], op, "starts before its last step was sampled");
  }
  embedded_[item(op)] = 1;
  work(stage, costs_.embed * share(op));
  return kDone;
}

Machine::Verdict Machine::run_chunk(int stage, const Op& op) {
  if (op.chunk == 0) {
    require(embedded_[item(op)], op, "runs before its embed");
  } else {
    Op input = op;
    --input.chunk;
    if (take_input(stage, input) == kWaits) return kWaits;
  }
  const int place = op.step * slots() + op.patch + 1;
  require(place > last_ran_[op.chunk], op, "breaks the order (step, patch)");
  last_ran_[op.chunk] = place;
  if (const int old = in_send_slot_[slot(op)]; old >= 0) {
    require(arrival_[old] != kUnknown && arrival_[old] <= clock_[stage], op,
            "overwrites a message under way");
  }
  ran_[item(op)] = 1;
  work(stage, costs_.chunks[op.chunk] * share(op));
  if (!travels(op.chunk)) arrival_[item(op)] = clock_[stage];
  return kDone;
}

Machine::Verdict Machine::head(int stage, const Op& op) {
  require(ran_[item(op)], op, "stands before its run");
  predicted_[item(op)] = 1;
  work(stage, costs_.head * share(op));
  if (!travels(op.chunk)) arrival_[item(op)] = clock_[stage];
  return kDone;
}

Machine::Verdict Machine::sample(int stage, const Op& op) {
  Op prediction = op;
  prediction.chunk = last_chunk();
  if (!travels(last_chunk())) require(predicted_[item(prediction)], op, "stands before the head");
  if (take_input(stage, prediction) == kWaits) return kWaits;
  require(!sampled_[item(op)], op, "is done twice");
  sampled_[item(op)] = 1;
  work(stage, costs_.sample * share(op));
  return kDone;
}

// Lets every send and receive that face each other in this direction meet.
void Machine::meet(Lane& lane, double hop) {
  for (; lane.met < std::min(lane.sends.size(), lane.recvs.size()); ++lane.met) {
    const Op &sent = lane.sends[lane.met], &wanted = lane.recvs[lane.met];
    require(sent.chunk == wanted.chunk && sent.patch == wanted.patch && sent.step == wanted.step, wanted,
            "meets another message of its direction");
    const double begin = std::max({lane.sent[lane.met], lane.posted[lane.met], lane.idle_since});
    lane.idle_since = begin + hop * share(sent);
    arrival_[item(sent)] = lane.idle_since;
  }
}

// Puts the operation into its lane, once; done when this mode lets the stage go on.
Machine::Verdict Machine::post(int stage, const Op& op, Lane& lane) {
  const bool sends = op.kind == Op::kSend;
  auto& ops = sends ? lane.sends : lane.recvs;
  if (!posted_[stage]) {
    ops.push_back(op);
    (sends ? lane.sent : lane.posted).push_back(clock_[stage]);
    meet(lane, costs_.hop);
  }
  const bool stands_still = mode_ == SendMode::kRendezvous || (mode_ == SendMode::kBuffered && !sends);
  posted_[stage] = stands_still && lane.met < ops.size();
  if (posted_[stage]) return kWaits;
  if (stands_still) clock_[stage] = std::max(clock_[stage], arrival_[item(op)]);
  return kDone;
}

Machine::Verdict Machine::send(int stage, const Op& op) {
  require(op.chunk == last_chunk() ? predicted_[item(op)] : ran_[item(op)], op,
          "stands before what it sends");
  in_send_slot_[slot(op)] = item(op);
  return post(stage, op, lane(stage, op.peer_stage));
}

Machine::Verdict Machine::recv(int stage, const Op& op) {
  if (!posted_[stage]) {
    require(!full_[slot(op)], op, "overwrites a message that nobody has read");
    full_[slot(op)] = 1;
  }
  return post(stage, op, lane(op.peer_stage, stage));
}

// What this stage has sent and asked for is over.
Machine::Verdict Machine::drain(int stage) {
  for (int peer = 0; peer < stages(); ++peer) {
    const Lane &out = lane(stage, peer), &in = lane(peer, stage);
    if (out.met < out.sends.size() || in.met < in.recvs.size()) return kWaits;
    for (const Lane* one : {&out, &in}) clock_[stage] = std::max(clock_[stage], one->idle_since);
  }
  return kDone;
}

Machine::Verdict Machine::step(int stage) {
  const Op& op = lists_[stage][at_[stage]];
  check_place(stage, op);
  if (!result_.fault.empty()) return kWaits;
  if (mode_ == SendMode::kDrained && drain(stage) == kWaits) return kWaits;
  switch (op.kind) {
    case Op::kEmbed:
      return embed(stage, op);
    case Op::kRun:
      return run_chunk(stage, op);
    case Op::kSend:
      return send(stage, op);
    case Op::kRecv:
      return recv(stage, op);
    case Op::kHead:
      return head(stage, op);
    case Op::kSample:
      return sample(stage, op);
  }
  return kDone;
}

std::string Machine::stuck() const {
  std::string text = "deadlock:";
  for (int stage = 0; stage < stages(); ++stage) {
    if (at_[stage] == lists_[stage].size()) continue;
    text += str(" stage ", stage, " waits in operation ", at_[stage], " (",
                describe(lists_[stage][at_[stage]]), ");");
  }
  return text;
}

void Machine::check_complete() {
  for (int step = 0; step < steps_; ++step) {
    const auto done = [&](int patch) { return sampled_[item({Op::kSample, 0, patch, step})] != 0; };
    int patches = 0;
    for (int patch = 0; patch < patches_; ++patch) patches += done(patch);
    const bool complete = done(-1) ? patches == 0 : patches == patches_;
    require(complete, {Op::kSample, 0, -1, step}, "the step did not sample everything exactly once");
  }
  for (const Lane& lane : lanes_) {
    if (lane.met < lane.sends.size()) require(false, lane.sends[lane.met], "is never received");
    if (lane.met < lane.recvs.size()) require(false, lane.recvs[lane.met], "is never sent");
  }
}

Simulation Machine::run() {
  for (bool moved = true; moved && result_.fault.empty();) {
    moved = false;
    for (int stage = 0; stage < stages(); ++stage) {
      while (at_[stage] < lists_[stage].size() && step(stage) == kDone && result_.fault.empty()) {
        ++at_[stage];
        moved = true;
      }
    }
  }
  const auto ended = [&](int stage) { return at_[stage] == lists_[stage].size(); };
  for (int stage = 0; stage < stages() && result_.fault.empty(); ++stage) {
    if (!ended(stage)) result_.fault = stuck();
  }
  if (result_.fault.empty()) check_complete();
  result_.makespan = *std::max_element(clock_.begin(), clock_.end());
  return result_;
}

}  // namespace

double Simulation::utilisation() const {
  if (makespan <= 0) return 0;
  return std::accumulate(busy.begin(), busy.end(), 0.0) / (makespan * static_cast<double>(busy.size()));
}

Simulation simulate(std::span<const ModelChunk> route, std::span<const std::vector<Op>> lists,
                    const Costs& costs, SendMode mode) {
  return Machine(route, lists, costs, mode).run();
}

}  // namespace atelier::plan
