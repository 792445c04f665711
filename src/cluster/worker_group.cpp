#include "cluster/worker_group.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cluster/sockets.h"

namespace atelier::cluster {
namespace {

// Both ends, each closed on exec. A worker that does not read must not hold the supervisor for long.
std::array<Descriptor, 2> socket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw Error(Kind::kCapacity, str("no sockets for a worker: ", std::strerror(errno)));
  }
  const timeval patience{2, 0};
  ::setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  return {Descriptor(fds[0]), Descriptor(fds[1])};
}

}  // namespace

WorkerGroup::WorkerGroup(const Job& job, Coordinator* coordinator, int number)
    : job_(job),
      coordinator_(coordinator),
      number_(number),
      workers_(static_cast<size_t>(plan::world_size(job.engine.layout))) {
  if (coordinator_) {
    rendezvous_host_ = coordinator_->env().host;
    rendezvous_port_ = free_port(rendezvous_host_);
    coordinator_->start(number_);
  } else {
    rendezvous_ = memory_file();
  }
  const int here = coordinator_ ? coordinator_->env().ranks : size();
  for (int rank = 0; rank < here; ++rank) start_here(rank);
}

WorkerGroup::~WorkerGroup() {
  end(std::chrono::milliseconds(1000));
}

void WorkerGroup::start_here(int rank) {
  auto& worker = workers_[static_cast<size_t>(rank)];
  auto [ours, theirs] = socket_pair();
  ChildPlan plan{.socket = theirs.get(), .rendezvous = rendezvous_.get()};
  const int local_size = coordinator_ ? coordinator_->env().local_size : size();
  if (job_.engine.device == "cpu" && !std::getenv("OMP_NUM_THREADS")) {
    plan.environment.push_back(str("OMP_NUM_THREADS=", std::max(1, usable_cores() / local_size)));
  }
  worker.child = Child::start(plan);
  worker.channel = std::make_unique<Channel>(ours.release(), Channel::Side::kSupervisor);
  send_job(rank, coordinator_ ? coordinator_->env().local_rank + rank : rank, local_size);
}

void WorkerGroup::send_job(int rank, int local_rank, int local_size) {
  RankInfo info{
      .rank = rank, .size = size(), .local_rank = local_rank, .local_size = local_size, .start = number_};
  if (coordinator_) {
    info.rendezvous_host = rendezvous_host_;
    info.rendezvous_port = rendezvous_port_;
  } else {
    info.rendezvous_file = str("/proc/self/fd/", kChildRendezvous);
  }
  Json message = message_of(message::kJob);
  message["job"] = to_json(job_);
  message["rank_info"] = to_json(info);
  send(rank, message);
}

std::string WorkerGroup::name(int rank) const {
  const auto& worker = workers_[static_cast<size_t>(rank)];
  if (worker.child) return str("rank ", rank, " (process ", worker.child->id(), ")");
  return worker.host.empty() ? str("rank ", rank) : str("rank ", rank, " at ", worker.host);
}

void WorkerGroup::send(int rank, const Json& message) {
  // one that cannot be reached is found by its silence or its end
  if (auto& channel = workers_[static_cast<size_t>(rank)].channel) channel->send(message);
}

bool WorkerGroup::is_stopped(int rank) const {
  const auto& child = workers_[static_cast<size_t>(rank)].child;
  return child && child->is_stopped();
}

std::vector<WorkerGroup::WorkerEvent> WorkerGroup::wait(std::chrono::milliseconds time, int wake) {
  std::vector<pollfd> entries{{wake, POLLIN, 0}};
  if (coordinator_) entries.push_back({coordinator_->wake_fd(), POLLIN, 0});
  const size_t first = entries.size();
  std::vector<int> ranks;
  for (int rank = 0; rank < size(); ++rank) {
    const auto& worker = workers_[static_cast<size_t>(rank)];
    if (!worker.channel || worker.is_gone) continue;
    entries.push_back({worker.channel->fd(), POLLIN, 0});
    ranks.push_back(rank);
  }
  std::vector<WorkerEvent> events;
  if (::poll(entries.data(), entries.size(), static_cast<int>(time.count())) <= 0) return events;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (entries[first + i].revents) read(ranks[i], events);
  }
  if (coordinator_) add_arrivals(events);
  return events;
}

void WorkerGroup::read(int rank, std::vector<WorkerEvent>& events) {
  auto& worker = workers_[static_cast<size_t>(rank)];
  bool is_open = false;
  std::string what = "closed its connection";
  try {
    is_open = worker.channel->take_in();
    while (auto message = worker.channel->next()) events.push_back({rank, std::move(*message), "", false});
  } catch (const Error& e) {
    is_open = false;
    what = e.what();
  }
  if (is_open) return;
  worker.is_gone = true;
  if (worker.child) {
    // the sockets of an ending process close shortly before waitpid() reports its status
    for (int i = 0; i < 100 && !worker.child->status(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (const auto status = worker.child->status()) what = status_text(*status);
  }
  events.push_back({rank, Json(), what, false});
}

void WorkerGroup::add_arrivals(std::vector<WorkerEvent>& events) {
  for (auto& arrival : coordinator_->take_events()) {
    auto& worker = workers_[static_cast<size_t>(arrival.rank)];
    if (arrival.start == -1) {
      events.push_back({arrival.rank, Json(), str("its process at ", arrival.host, " ", arrival.what), true});
    } else if (arrival.start != number_) {
      continue;  // of an earlier start
    } else if (!arrival.channel) {
      events.push_back({arrival.rank, Json(), arrival.what, false});
      worker.is_gone = true;
    } else if (!worker.channel) {
      worker.channel = std::move(arrival.channel);
      worker.host = arrival.host;
      send_job(arrival.rank, arrival.local_rank, arrival.local_size);
    }
  }
}

void WorkerGroup::end(std::chrono::milliseconds grace) {
  if (coordinator_) coordinator_->end_workers();
  std::vector<Child*> children;
  for (auto& worker : workers_) {
    if (worker.child) children.push_back(&*worker.child);
    if (worker.channel && !worker.child) worker.channel->shut_down();
    worker.is_gone = true;
  }
  end_all(children, grace);
}

std::vector<pid_t> WorkerGroup::processes() const {
  std::vector<pid_t> all;
  for (const auto& worker : workers_) {
    if (worker.child) all.push_back(worker.child->id());
  }
  return all;
}

}  // namespace atelier::cluster
