#include "cluster/worker_group.h"

#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/error.h"

namespace atelier::cluster {
namespace {

// Both ends, each closed on exec.
std::array<Descriptor, 2> socket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw Error(Kind::kCapacity, str("no sockets for a worker: ", std::strerror(errno)));
  }
  return {Descriptor(fds[0]), Descriptor(fds[1])};
}

}  // namespace

WorkerGroup::WorkerGroup(const Job& job, Coordinator* coordinator, RankRange ranks)
    : job_(job), coordinator_(coordinator), ranks_(ranks) {}

WorkerGroup::~WorkerGroup() {
  end();  // for all at once; each child is then waited for
}

void WorkerGroup::start(int store_port) {
  members_ = std::vector<WorkerHandle>(static_cast<size_t>(ranks_.count));
  store_port_ = store_port;
  if (coordinator_) {
    coordinator_->start(ranks_, starts_);
  } else {
    rendezvous_ = memory_file();
  }
  ++starts_;
  for (int rank = ranks_.first; rank < ranks_.first + ranks_.count; ++rank) {
    if (!coordinator_ || rank < coordinator_->env().ranks) start_here(rank);
  }
}

void WorkerGroup::start_here(int rank) {
  auto& worker = member(rank);
  auto [ours, theirs] = socket_pair();
  ChildPlan plan{.socket = theirs.get(), .rendezvous = rendezvous_.get()};
  const int all = plan::world_size(job_.engine.layout);
  const int local_size = coordinator_ ? coordinator_->env().local_size : all;
  if (!std::getenv("OMP_NUM_THREADS")) {
    plan.environment.push_back(str("OMP_NUM_THREADS=", std::max(1, usable_cores() / local_size)));
  }
  worker.child = Child::start(plan);
  worker.channel = std::make_unique<Channel>(ours.release(), Channel::Side::kPool);
  send_job(rank, coordinator_ ? coordinator_->env().local_rank + rank : rank, local_size);
}

void WorkerGroup::send_job(int rank, int local_rank, int local_size) {
  RankInfo info{.rank = rank,
                .group = number(),
                .group_rank = rank - ranks_.first,
                .group_size = ranks_.count,
                .local_rank = local_rank,
                .local_size = local_size,
                .start = starts_ - 1};
  if (coordinator_) {
    info.rendezvous_host = coordinator_->env().host;
    info.rendezvous_port = store_port_;
    info.rendezvous_name = str("group ", number(), " start ", info.start);
  } else {
    info.rendezvous_file = str("/proc/self/fd/", kChildRendezvous);
  }
  Job job = job_;
  job.engine.layout.data = 1;  // to its workers a replica is all there is
  Json message = message_of(message::kJob);
  message["job"] = to_json(job);
  message["rank"] = to_json(info);
  send(rank, message);
}

std::string WorkerGroup::name(int rank) const {
  const std::string group = job_.engine.layout.data > 1 ? str(" of group ", number()) : "";
  const auto& worker = member(rank);
  if (worker.child) return str("rank ", rank, group, " (process ", worker.child->id(), ")");
  return str("rank ", rank, group, worker.host.empty() ? "" : " at ", worker.host);
}

void WorkerGroup::send(int rank, const Json& message) {
  auto& worker = member(rank);
  if (worker.channel && !worker.is_gone && !worker.channel->send(message)) worker.is_deaf = true;
}

void WorkerGroup::send_all(const Json& message) {
  if (members_.empty()) return;
  for (int rank = ranks_.first; rank < ranks_.first + ranks_.count; ++rank) send(rank, message);
}

bool WorkerGroup::is_stopped(int rank) const {
  const auto& child = member(rank).child;
  return child && child->is_stopped();
}

void WorkerGroup::watch(std::vector<pollfd>& entries) const {
  for (const auto& worker : members_) {
    if (!worker.channel || worker.is_gone) continue;
    entries.push_back(
        {worker.channel->fd(), static_cast<short>(worker.channel->flush() ? POLLIN | POLLOUT : POLLIN), 0});
  }
}

std::vector<WorkerEvent> WorkerGroup::read() {
  std::vector<WorkerEvent> events;
  for (int rank = ranks_.first; rank < ranks_.first + std::ssize(members_); ++rank) {
    if (member(rank).channel && !member(rank).is_gone) read(rank, events);
  }
  return events;
}

void WorkerGroup::read(int rank, std::vector<WorkerEvent>& events) {
  auto& worker = member(rank);
  bool is_open = false;
  std::string what = "closed its connection";
  try {
    is_open = worker.channel->take_in();
    while (auto message = worker.channel->next()) events.push_back({rank, std::move(*message), "", false});
  } catch (const Error& e) {
    is_open = false;
    what = e.what();
  }
  const bool does_not_listen = is_open && worker.is_deaf;
  if (does_not_listen) what = "does not take its messages";
  if (is_open && !does_not_listen) return;
  worker.is_gone = true;
  if (worker.child && !does_not_listen) {
    // the kernel closes its sockets a moment before it can be waited for
    for (int i = 0; i < 100 && !worker.child->status(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (const auto status = worker.child->status()) what = status_text(*status);
  }
  events.push_back({rank, Json(), what, false});
}

std::optional<WorkerEvent> WorkerGroup::take(Coordinator::AgentEvent event) {
  if (members_.empty()) return std::nullopt;
  auto& worker = member(event.rank);
  if (event.start == -1)
    return WorkerEvent{event.rank, Json(), str("its process at ", event.host, " ", event.what), true};
  if (event.start != starts_ - 1) return std::nullopt;  // of an earlier start
  if (!event.channel) {
    worker.is_gone = true;
    return WorkerEvent{event.rank, Json(), event.what, false};
  }
  if (worker.channel || worker.is_gone) return std::nullopt;
  worker.channel = std::move(event.channel);
  worker.host = event.host;
  send_job(event.rank, event.local_rank, event.local_size);
  return std::nullopt;
}

void WorkerGroup::end() {
  if (coordinator_ && !members_.empty()) coordinator_->end_workers(ranks_);
  for (auto& worker : members_) {
    if (worker.child) worker.child->signal(SIGKILL);
    if (worker.channel && !worker.child) worker.channel->shut_down();
    worker.is_gone = true;
  }
}

void WorkerGroup::leave() {
  for (auto& worker : members_) {
    if (worker.child) worker.child->end(std::chrono::milliseconds(0));
  }
}

bool WorkerGroup::has_ended() {
  return std::all_of(members_.begin(), members_.end(),
                     [](WorkerHandle& w) { return !w.child || w.child->status(); });
}

bool WorkerGroup::are_gone() const {
  return std::all_of(members_.begin(), members_.end(),
                     [](const WorkerHandle& w) { return !w.channel || w.is_gone; });
}

std::vector<pid_t> WorkerGroup::processes() const {
  std::vector<pid_t> all;
  for (const auto& worker : members_) {
    if (worker.child) all.push_back(worker.child->id());
  }
  return all;
}

}  // namespace atelier::cluster
