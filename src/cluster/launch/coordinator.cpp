// The process of rank 0 and the agents of the other launched processes: who has come, who is to start which
// worker, how it ended.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cluster/launch/launch.h"
#include "cluster/sockets.h"

namespace atelier::cluster {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kGreeting{5};  // a peer that connects must say who it is within this time
constexpr size_t kMaxGreetings = 256;         // at once; more of them are strangers

template <class T>
T value(const Json& message, const char* key) {
  try {
    return message.at(key).get<T>();
  } catch (const Json::exception& e) {
    throw Error(Kind::kPeer, str("a message between processes is incomplete: ", e.what()));
  }
}

Json order(const char* kind, int rank, int start) {
  Json message = message_of(kind);
  message["rank"] = rank;
  message["start"] = start;
  return message;
}

}  // namespace

Coordinator::Coordinator(LauncherEnv env)
    : env_(std::move(env)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      starts_(static_cast<size_t>(env_.size), -1) {
  for (int i = 1; i <= LauncherEnv::kPorts && listener_.get() < 0; ++i)
    listener_ = listen_at(env_.host, env_.port + i);
  if (listener_.get() < 0) {
    throw Error(Kind::kPeer, str("the ports ", env_.port + 1, " to ", env_.port + LauncherEnv::kPorts, " at ",
                                 env_.host, " are taken; set another MASTER_PORT"));
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
}

Coordinator::~Coordinator() {
  finish(1);
}

int Coordinator::present() const {
  int ranks = env_.ranks;
  for (const auto& agent : agents_) ranks += agent.ranks.count;
  return ranks;
}

void Coordinator::add(AgentEvent event) {
  events_.push_back(std::move(event));
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
}

std::vector<Coordinator::AgentEvent> Coordinator::take_events() {
  uint64_t count = 0;
  [[maybe_unused]] const auto read = ::read(wake_.get(), &count, sizeof count);
  const std::scoped_lock lock(mutex_);
  return std::exchange(events_, {});
}

// agents_ and greetings_ change on this thread only.
void Coordinator::work(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    try {
      turn();
    } catch (const std::exception& e) {  // no descriptors, no memory: perhaps there are later
      log::warning(str("other launched processes are not listened to: ", e.what()));
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
  }
}

void Coordinator::turn() {
  std::vector<pollfd> entries{{listener_.get(), POLLIN, 0}};
  const auto watch = [&](Channel& channel) {
    entries.push_back({channel.fd(), static_cast<short>(channel.flush() ? POLLIN | POLLOUT : POLLIN), 0});
  };
  for (const auto& agent : agents_) watch(*agent.channel);
  for (const auto& greeting : greetings_) watch(*greeting.channel);
  ::poll(entries.data(), entries.size(), 100);
  if (entries[0].revents) accept();
  const std::scoped_lock lock(mutex_);
  tell_of_waiting();
  for (auto& agent : agents_) listen(agent);
  std::erase_if(agents_, [&](const AgentConnection& a) {
    if (!a.channel) lost_ += a.ranks.count;
    return !a.channel;
  });
  std::erase_if(greetings_, [&](Greeting& g) { return hear_greeting(g) || Clock::now() > g.until; });
  changed_.notify_all();
}

void Coordinator::tell_of_waiting() {
  if (has_told_ || is_finished_ || Clock::now() - begun_ < kTold) return;
  has_told_ = true;
  if (present() + lost_ >= env_.size) return;
  std::string missing;
  for (int rank = env_.ranks; rank < env_.size; ++rank) {
    const bool is_here = std::any_of(agents_.begin(), agents_.end(),
                                     [&](const AgentConnection& a) { return a.ranks.has(rank); });
    if (!is_here && missing.size() < 60) missing += str(missing.empty() ? "" : ", ", rank);
  }
  log::warning(str("waiting for rank ", missing, " of ", env_.size, " ", meeting_text(env_),
                   "; where no other process is to come, unset these variables"));
}

void Coordinator::accept() {
  auto fd = accept_from(listener_.get());
  if (fd.get() < 0) return;
  if (greetings_.size() >= kMaxGreetings) greetings_.erase(greetings_.begin());
  greetings_.push_back(
      {std::make_unique<Channel>(fd.release(), Channel::Side::kPool, env_.key), Clock::now() + kGreeting});
}

// Whether it is over: the peer has said who it is, or is none of ours.
bool Coordinator::hear_greeting(Greeting& greeting) {
  try {
    auto& channel = greeting.channel;
    const bool is_open = channel->take_in();
    const auto hello = channel->next();
    if (!hello) return !is_open;
    if (kind_of(*hello) != message::kHello) return true;
    const RankRange ranks{value<int>(*hello, "rank"), value<int>(*hello, "ranks")};
    const auto start = value<int>(*hello, "start");
    const auto host = value<std::string>(*hello, "host");
    if (ranks.first < env_.ranks || ranks.count < 1 || ranks.count > env_.size - ranks.first) return true;
    if (start >= 0) {
      add({.rank = ranks.first,
           .start = start,
           .local_rank = value<int>(*hello, "local_rank"),
           .local_size = value<int>(*hello, "local_size"),
           .host = host,
           .channel = std::move(channel)});
      return true;
    }
    channel->send(message_of(message::kWelcome));
    for (int rank = ranks.first; rank < ranks.first + ranks.count; ++rank) {
      const int number = starts_[static_cast<size_t>(rank)];
      if (number >= 0) channel->send(order(message::kStart, rank, number));
    }
    agents_.push_back({ranks, host, std::move(channel)});
  } catch (const std::exception& e) {
    log::debug(str("refused a connection: ", e.what()));
  }
  return true;
}

void Coordinator::listen(AgentConnection& agent) {
  bool is_open = false;
  try {
    is_open = agent.channel->take_in();
    while (const auto message = agent.channel->next()) {
      if (kind_of(*message) != message::kExited) continue;
      add({.rank = value<int>(*message, "rank"),
           .start = value<int>(*message, "start"),
           .host = agent.host,
           .what = value<std::string>(*message, "what")});
    }
  } catch (const std::exception& e) {
    log::warning(e.what());
  }
  if (is_open) return;
  for (int i = 0; i < agent.ranks.count; ++i)
    add({.rank = agent.ranks.first + i, .host = agent.host, .what = "is gone"});
  agent.channel.reset();
}

void Coordinator::tell(int rank, const char* kind, int start) {
  for (const auto& agent : agents_) {
    if (agent.channel && agent.ranks.has(rank)) agent.channel->send(order(kind, rank, start));
  }
}

void Coordinator::start(RankRange ranks, int number) {
  const std::scoped_lock lock(mutex_);
  for (int rank = ranks.first; rank < ranks.first + ranks.count; ++rank) {
    starts_[static_cast<size_t>(rank)] = number;
    tell(rank, message::kStart, number);
  }
}

void Coordinator::end_workers(RankRange ranks) {
  const std::scoped_lock lock(mutex_);
  for (int rank = ranks.first; rank < ranks.first + ranks.count; ++rank) {
    starts_[static_cast<size_t>(rank)] = -1;
    tell(rank, message::kEndWorker, -1);
  }
}

void Coordinator::finish(int code) {
  {
    std::unique_lock lock(mutex_);
    if (is_finished_) return;
    is_finished_ = true;
    // who stops a run is not kept waiting for processes that may never come
    const bool is_stopped = code == exit_code(Kind::kInterrupted);
    changed_.wait_for(lock, is_stopped ? kStopPatience : kPatience,
                      [&] { return present() + lost_ >= env_.size; });  // late ones too
    Json end = message_of(message::kEnd);
    end["code"] = code;
    for (const auto& agent : agents_) agent.channel->send(end);
  }
  thread_ = {};
  // their answer is the end of the connection
  for (const auto& agent : agents_) agent.channel->wait(std::chrono::seconds(3));
}

}  // namespace atelier::cluster
