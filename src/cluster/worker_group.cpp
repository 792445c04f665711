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

Team::Team(const Job& job, Rally* rally, int number)
    : job_(job),
      rally_(rally),
      number_(number),
      members_(static_cast<size_t>(plan::world_size(job.degrees))) {
  if (rally_) {
    meeting_host_ = rally_->outer().host;
    meeting_port_ = free_port(meeting_host_);
    rally_->start(number_);
  } else {
    meeting_ = memory_file();
  }
  const int here = rally_ ? rally_->outer().ranks : size();
  for (int rank = 0; rank < here; ++rank) start_here(rank);
}

Team::~Team() {
  end(std::chrono::milliseconds(1000));
}

void Team::start_here(int rank) {
  auto& member = members_[static_cast<size_t>(rank)];
  auto [ours, theirs] = socket_pair();
  ChildPlan plan{.socket = theirs.get(), .meeting = meeting_.get()};
  const int local_size = rally_ ? rally_->outer().local_size : size();
  if (job_.device == "cpu" && !std::getenv("OMP_NUM_THREADS")) {
    plan.environment.push_back(str("OMP_NUM_THREADS=", std::max(1, usable_cores() / local_size)));
  }
  member.child = Child::start(plan);
  member.channel = std::make_unique<Channel>(ours.release(), Channel::Side::kSupervisor);
  send_job(rank, rally_ ? rally_->outer().local_rank + rank : rank, local_size);
}

void Team::send_job(int rank, int local_rank, int local_size) {
  Place place{
      .rank = rank, .size = size(), .local_rank = local_rank, .local_size = local_size, .start = number_};
  if (rally_) {
    place.meeting_host = meeting_host_;
    place.meeting_port = meeting_port_;
  } else {
    place.meeting_file = str("/proc/self/fd/", kChildMeeting);
  }
  Json message = message_of(message::kJob);
  message["job"] = to_json(job_);
  message["place"] = to_json(place);
  send(rank, message);
}

std::string Team::name(int rank) const {
  const auto& member = members_[static_cast<size_t>(rank)];
  if (member.child) return str("rank ", rank, " (process ", member.child->id(), ")");
  return member.host.empty() ? str("rank ", rank) : str("rank ", rank, " at ", member.host);
}

void Team::send(int rank, const Json& message) {
  // one that cannot be reached is found by its silence or its end
  if (auto& channel = members_[static_cast<size_t>(rank)].channel) channel->send(message);
}

bool Team::is_stopped(int rank) const {
  const auto& child = members_[static_cast<size_t>(rank)].child;
  return child && child->is_stopped();
}

std::vector<Team::News> Team::wait(std::chrono::milliseconds time, int wake) {
  std::vector<pollfd> entries{{wake, POLLIN, 0}};
  if (rally_) entries.push_back({rally_->wake_fd(), POLLIN, 0});
  const size_t first = entries.size();
  std::vector<int> ranks;
  for (int rank = 0; rank < size(); ++rank) {
    const auto& member = members_[static_cast<size_t>(rank)];
    if (!member.channel || member.is_gone) continue;
    entries.push_back({member.channel->fd(), POLLIN, 0});
    ranks.push_back(rank);
  }
  std::vector<News> news;
  if (::poll(entries.data(), entries.size(), static_cast<int>(time.count())) <= 0) return news;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (entries[first + i].revents) read(ranks[i], news);
  }
  if (rally_) add_arrivals(news);
  return news;
}

void Team::read(int rank, std::vector<News>& news) {
  auto& member = members_[static_cast<size_t>(rank)];
  bool is_open = false;
  std::string what = "closed its connection";
  try {
    is_open = member.channel->take_in();
    while (auto message = member.channel->next()) news.push_back({rank, std::move(*message), "", false});
  } catch (const Error& e) {
    is_open = false;
    what = e.what();
  }
  if (is_open) return;
  member.is_gone = true;
  if (member.child) {
    // its sockets close a moment before it can be waited for
    for (int i = 0; i < 100 && !member.child->status(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (const auto status = member.child->status()) what = status_text(*status);
  }
  news.push_back({rank, Json(), what, false});
}

void Team::add_arrivals(std::vector<News>& news) {
  for (auto& arrival : rally_->take_news()) {
    auto& member = members_[static_cast<size_t>(arrival.rank)];
    if (arrival.start == -1) {
      news.push_back({arrival.rank, Json(), str("its process at ", arrival.host, " ", arrival.what), true});
    } else if (arrival.start != number_) {
      continue;  // of an earlier start
    } else if (!arrival.channel) {
      news.push_back({arrival.rank, Json(), arrival.what, false});
      member.is_gone = true;
    } else if (!member.channel) {
      member.channel = std::move(arrival.channel);
      member.host = arrival.host;
      send_job(arrival.rank, arrival.local_rank, arrival.local_size);
    }
  }
}

void Team::end(std::chrono::milliseconds grace) {
  if (rally_) rally_->end_workers();
  std::vector<Child*> children;
  for (auto& member : members_) {
    if (member.child) children.push_back(&*member.child);
    if (member.channel && !member.child) member.channel->shut_down();
    member.is_gone = true;
  }
  end_all(children, grace);
}

std::vector<pid_t> Team::processes() const {
  std::vector<pid_t> all;
  for (const auto& member : members_) {
    if (member.child) all.push_back(member.child->id());
  }
  return all;
}

}  // namespace atelier::cluster
