#include "cluster/worker_pool.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "cluster/sockets.h"
#include "comm/comm.h"

namespace atelier::cluster {
namespace {

constexpr std::chrono::milliseconds kLook{100};  // between two looks at the clocks
constexpr std::chrono::seconds kAsleep{3};       // a longer pause between two: it was us who did not run
constexpr std::chrono::seconds kFarewell{5};     // for workers to leave by themselves

RetryLimits limits_of(const Job& job) {
  const auto& layout = job.engine.layout;
  return {.max_retries = job.pool.max_retries,
          .memory_tries = plan::world_size(layout) == layout.data ? 1 : 2,
          .start_advice = job.engine.device == "cpu" ? ""
                                                     : "; NCCL_DEBUG=INFO shows what its connections do, "
                                                       "NCCL_IB_DISABLE=1 leaves InfiniBand out"};
}

}  // namespace

WorkerPool::WorkerPool(Job job, Coordinator* coordinator)
    : job_(std::move(job)),
      coordinator_(coordinator),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      policy_(job_.engine.layout.data, limits_of(job_)) {
  const int world = plan::world_size(job_.engine.layout), groups = job_.engine.layout.data;
  if (coordinator_) {
    const auto& env = coordinator_->env();
    if (world != env.size) {
      throw Error(Kind::kUsage,
                  str(env.launcher, " has started ", env.size, " ranks, the layout needs ",
                      plan::product(job_.engine.layout), "; start ", world, " or change the degrees"));
    }
    // Where the coordinator listens, and nowhere else: nobody has to show a key there.
    auto listening = listen_at(env.host, 0);
    if (listening.get() < 0) throw Error(Kind::kPeer, str("no port for ranks to meet at ", env.host));
    store_ = std::make_unique<comm::RendezvousServer>(listening.release());
  }
  const int ranks = world / groups;
  for (int g = 0; g < groups; ++g)
    replicas_.push_back(std::make_unique<Replica>(job_, coordinator_, RankRange{g * ranks, ranks}));
}

WorkerPool::~WorkerPool() {
  for (auto& replica : replicas_) replica->end(Replica::Status::kLost);
  for (auto& replica : replicas_) {
    while (!replica->has_ended() && !replica->is_stuck())
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (auto& replica : replicas_) replica->workers().leave();
}

int64_t WorkerPool::submit(std::vector<request::Request> requests) {
  if (requests.empty()) throw Error(Kind::kUsage, "a batch needs a request");
  return submit(PendingBatch{.requests = std::move(requests)});
}

int64_t WorkerPool::submit(TensorCall call) {
  return submit(PendingBatch{.call = std::move(call)});
}

int64_t WorkerPool::submit(PendingBatch batch) {
  const std::scoped_lock lock(mutex_);
  batch.id = ++last_id_;
  submitted_.push_back(std::move(batch));
  wake();
  return last_id_;
}

void WorkerPool::cancel(int64_t batch) {
  const std::scoped_lock lock(mutex_);
  cancelled_.push_back(batch);
  wake();
}

void WorkerPool::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
}

std::vector<PoolEvent> WorkerPool::poll(std::chrono::milliseconds time) {
  if (owner_ == std::thread::id()) {
    owner_ = std::this_thread::get_id();
    looked_ = Clock::now();
  }
  ENSURE(owner_ == std::this_thread::get_id());
  if (end_) throw *end_;
  start_replicas();
  take_commands();
  dispatch();
  wait(events_.empty() ? std::min<std::chrono::milliseconds>(time, kLook) : std::chrono::milliseconds(0));
  take_commands();
  take_arrivals();
  for (auto& replica : replicas_) read(*replica);
  check_replicas();
  if (!end_) dispatch();
  return std::exchange(events_, {});
}

void WorkerPool::check_replicas() {
  const auto now = Clock::now();
  // This process was stopped, and its workers perhaps with it: their time did not run either.
  const auto pause = now - looked_ > kAsleep ? now - looked_ : Clock::duration(0);
  looked_ = now;
  for (auto& replica : replicas_) {
    replica->check_clocks(pause);
    if (replica->failures()) settle(*replica);
  }
}

void WorkerPool::wait(std::chrono::milliseconds time) {
  std::vector<pollfd> entries{{wake_.get(), POLLIN, 0}};
  if (coordinator_) entries.push_back({coordinator_->wake_fd(), POLLIN, 0});
  for (const auto& replica : replicas_) replica->workers().watch(entries);
  ::poll(entries.data(), entries.size(), static_cast<int>(time.count()));
  uint64_t count = 0;
  [[maybe_unused]] const auto read = ::read(wake_.get(), &count, sizeof count);
}

// The first time, and when the workers of the last start have left their memory.
void WorkerPool::start_replicas() {
  for (auto& replica : replicas_) {
    if (replica->status() != Replica::Status::kEnding && replica->status() != Replica::Status::kLost)
      continue;
    const bool has_ended = replica->has_ended();
    if (replica->status() == Replica::Status::kLost) continue;
    if (has_ended) {
      replica->start(store_ ? store_->port() : 0);
    } else if (replica->is_stuck()) {
      give_up(*replica);
    }
  }
}

// Its memory is not free, and perhaps never will be.
void WorkerPool::give_up(Replica& replica) {
  const WorkerFailure failure{.who = str("a worker of group ", replica.number()),
                              .reason = "does not end though it was killed",
                              .is_final = true};
  act(replica, policy_.on_group_failed(replica.number(), failure, RetryPolicy::Blame::kNothing));
}

void WorkerPool::act(Replica& replica, const RetryPolicy::Decision& decision) {
  switch (decision.action) {
    case RetryPolicy::Action::kEnd:
      end_.emplace(decision.kind, decision.reason);
      return;
    case RetryPolicy::Action::kAbandon:
      replica.end(Replica::Status::kLost);
      events_.push_back(GroupLost{replica.number(), decision.reason});
      return;
    case RetryPolicy::Action::kRestart:
      ++restarts_;
      events_.push_back(GroupRestarted{replica.number(), decision.reason});
  }
}

void WorkerPool::take_commands() {
  std::vector<PendingBatch> submitted;
  std::vector<int64_t> cancelled;
  {
    const std::scoped_lock lock(mutex_);
    submitted = std::exchange(submitted_, {});
    cancelled = std::exchange(cancelled_, {});
  }
  for (auto& batch : submitted) {
    open_[batch.id] = {.unfinished = static_cast<int>(batch.size())};
    waiting_.push_back(std::move(batch));
  }
  for (const int64_t id : cancelled) {
    const auto open = open_.find(id);
    if (open == open_.end()) continue;  // done
    open->second.is_cancelled = true;
    for (auto& replica : replicas_) replica->cancel(id);
    std::vector<PendingBatch> dropped;
    std::erase_if(waiting_, [&](PendingBatch& batch) {
      if (batch.id != id) return false;
      dropped.push_back(std::move(batch));
      return true;
    });
    for (const auto& batch : dropped) drop(batch);
  }
}

void WorkerPool::take_arrivals() {
  if (!coordinator_) return;
  std::vector<Replica::Returned> returned;  // nothing: these are arrivals and ends
  for (auto& arrival : coordinator_->take_events()) {
    for (auto& replica : replicas_) {
      if (!replica->workers().ranks().has(arrival.rank)) continue;
      if (auto event = replica->workers().take(std::move(arrival)))
        replica->on_event(*event, events_, returned);
      break;
    }
  }
}

void WorkerPool::read(Replica& replica) {
  std::vector<Replica::Returned> returned;
  const size_t before = events_.size();
  for (const auto& event : replica.workers().read()) replica.on_event(event, events_, returned);
  // finish() adds to the events
  for (size_t i = before, end = events_.size(); i < end; ++i) {
    if (std::holds_alternative<GroupReady>(events_[i])) policy_.on_ready();
    const auto* stored = std::get_if<ArtifactStored>(&events_[i]);
    const auto* answered = std::get_if<CallAnswered>(&events_[i]);
    if (!stored && !answered) continue;
    policy_.on_artifact(replica.number());
    finish(stored ? stored->batch : answered->batch, 1);
  }
  for (auto& batch : returned) take(std::move(batch));
}

void WorkerPool::take(Replica::Returned returned) {
  if (returned.kind == Kind::kInterrupted) return drop(returned.batch);
  // what is sent back is one request's own; a folder is everybody's
  if (returned.phase == "write" && !job_.sink.returns_bytes && RetryPolicy::ends_pool(returned.kind)) {
    end_.emplace(*returned.kind, returned.reason);
  } else {
    retry_or_fail(std::move(returned.batch), returned.kind, returned.reason);
  }
}

void WorkerPool::settle(Replica& replica) {
  const auto failures = *replica.failures();
  const auto& cause = RetryPolicy::cause_of(failures);
  for (const auto& f : failures) {
    // The cause is told to the caller; others may say the same, and peers only met the others' end.
    if (f.reason != cause.reason && f.severity != WorkerFailure::Severity::kPeerLost)
      log::error(str(f.who, " ", f.reason));
  }
  auto in_flight = replica.end(Replica::Status::kEnding);
  auto blamed = std::find_if(in_flight.begin(), in_flight.end(),
                             [&](const InFlightBatch& f) { return f.run == cause.run; });
  if (blamed == in_flight.end()) {
    blamed = std::find_if(in_flight.begin(), in_flight.end(),
                          [](const InFlightBatch& f) { return !f.is_generated; });
  }
  if (blamed == in_flight.end()) blamed = in_flight.begin();
  const bool has_work = blamed != in_flight.end() && !cause.is_loading;
  const auto decision = policy_.on_group_failed(
      replica.number(), cause, has_work ? RetryPolicy::Blame::kBatch : RetryPolicy::Blame::kNothing);
  if (decision.action == RetryPolicy::Action::kEnd) return act(replica, decision);
  // From the back: what began first is drawn first. Whatever is not blamed is drawn again, and nobody counts
  // that against it.
  for (auto flight = in_flight.rbegin(); flight != in_flight.rend(); ++flight) {
    PendingBatch rest = flight->rest();
    if (rest.size() == 0) continue;
    if (&*flight == &*blamed) {
      retry_or_fail(std::move(rest), cause.kind, str(cause.who, " ", cause.reason));
    } else {
      --rest.attempts.begun;
      wait_again(std::move(rest));
    }
  }
  act(replica, decision);
}

void WorkerPool::retry_or_fail(PendingBatch batch, std::optional<Kind> kind, const std::string& reason) {
  if (open_.at(batch.id).is_cancelled) return drop(batch);
  const auto fate = policy_.on_batch_failed(batch.size(), kind, batch.attempts);
  if (batch.call && fate != RetryPolicy::Fate::kGiveUp) return waiting_.push_front(std::move(batch));
  if (batch.call) events_.push_back(CallFailed{batch.id, kind, reason});
  for (auto request = batch.requests.rbegin(); request != batch.requests.rend(); ++request) {
    if (fate == RetryPolicy::Fate::kGiveUp) {
      events_.push_back(RequestFailed{batch.id, std::move(*request), reason, batch.attempts.begun, kind});
    } else {
      waiting_.push_front({batch.id, batch.attempts, {std::move(*request)}});
    }
  }
  if (fate == RetryPolicy::Fate::kGiveUp) finish(batch.id, static_cast<int>(batch.size()));
}

void WorkerPool::wait_again(PendingBatch batch) {
  if (open_.at(batch.id).is_cancelled) return drop(batch);
  waiting_.push_front(std::move(batch));
}

void WorkerPool::drop(const PendingBatch& batch) {
  const int requests = static_cast<int>(batch.size());
  open_.at(batch.id).cancelled += requests;
  finish(batch.id, requests);
}

void WorkerPool::finish(int64_t id, int requests) {
  auto& open = open_.at(id);
  open.unfinished -= requests;
  if (open.unfinished > 0) return;
  events_.push_back(BatchDone{id, open.cancelled});
  open_.erase(id);
}

void WorkerPool::dispatch() {
  for (auto& replica : replicas_) {
    while (!waiting_.empty() && replica->can_take()) {
      auto batch = std::move(waiting_.front());
      waiting_.pop_front();
      ++batch.attempts.begun;
      replica->dispatch(std::move(batch), ++last_run_);
    }
  }
}

void WorkerPool::shut_down(const std::stop_token& stop) {
  const auto end = Clock::now() + kFarewell;
  for (auto& replica : replicas_) replica->workers().send_all(message_of(message::kStop));
  const auto are_gone = [](const auto& replica) { return replica->workers().are_gone(); };
  while (Clock::now() < end && !stop.stop_requested()) {
    for (auto& replica : replicas_) read(*replica);  // the last statistics
    if (std::all_of(replicas_.begin(), replicas_.end(), are_gone)) return;
    wait(kLook);
  }
}

std::vector<RankStats> WorkerPool::stats() const {
  std::vector<RankStats> all;
  for (const auto& replica : replicas_) {
    for (const auto& [rank, stats] : replica->stats()) all.push_back(stats);
  }
  return all;
}

}  // namespace atelier::cluster
