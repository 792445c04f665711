// The process of rank 0 and its followers: who has come, who is to start what, how it ended.
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

constexpr std::chrono::seconds kGreeting{5};  // a peer that connects must say who it is within this time

template <class T>
T value(const Json& message, const char* key) {
  try {
    return message.at(key).get<T>();
  } catch (const Json::exception& e) {
    throw Error(Kind::kPeer, str("a message between processes is incomplete: ", e.what()));
  }
}

}  // namespace

Coordinator::Coordinator(LauncherEnv env)
    : env_(std::move(env)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
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
  for (const auto& agent : agents_) ranks += agent.ranks;
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

void Coordinator::work(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::vector<pollfd> entries{{listener_.get(), POLLIN, 0}};
    {
      const std::scoped_lock lock(mutex_);
      for (const auto& agent : agents_) entries.push_back({agent.channel->fd(), POLLIN, 0});
    }
    if (::poll(entries.data(), entries.size(), 100) <= 0) continue;
    {
      const std::scoped_lock lock(mutex_);  // posts are added by this thread only
      for (size_t i = entries.size(); i-- > 1;) {
        if (entries[i].revents) listen(agents_[i - 1]);
      }
      std::erase_if(agents_, [&](const AgentConnection& p) {
        if (!p.channel) lost_ += p.ranks;
        return !p.channel;
      });
      changed_.notify_all();
    }
    if (entries[0].revents) greet(listener_.get());
  }
}

void Coordinator::greet(int listener) {
  auto fd = accept_from(listener);
  if (fd.get() < 0) return;
  try {
    auto channel = std::make_unique<Channel>(fd.release(), Channel::Side::kSupervisor, env_.key);
    const auto hello = channel->wait(kGreeting);
    if (!hello || kind_of(*hello) != message::kHello) return;
    const auto rank = value<int>(*hello, "rank"), ranks = value<int>(*hello, "ranks"),
               start = value<int>(*hello, "start");
    const auto host = value<std::string>(*hello, "host");
    if (rank < env_.ranks || ranks < 1 || rank + ranks > env_.size) return;
    const std::scoped_lock lock(mutex_);
    if (start >= 0) {
      add({.rank = rank,
           .start = start,
           .local_rank = value<int>(*hello, "local_rank"),
           .local_size = value<int>(*hello, "local_size"),
           .host = host,
           .channel = std::move(channel)});
      return;
    }
    channel->send(message_of(message::kWelcome));
    if (start_ >= 0) {
      Json order = message_of(message::kStart);
      order["start"] = start_;
      channel->send(order);
    }
    agents_.push_back({rank, ranks, host, std::move(channel)});
    changed_.notify_all();
  } catch (const Error& e) {
    log::debug(str("refused a connection: ", e.what()));
  }
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
  } catch (const Error& e) {
    log::warning(e.what());
  }
  if (is_open) return;
  add({.rank = agent.rank, .host = agent.host, .what = "is gone"});
  agent.channel.reset();
}

void Coordinator::tell_all(const Json& order) {
  for (const auto& agent : agents_) agent.channel->send(order);
}

void Coordinator::start(int number) {
  const std::scoped_lock lock(mutex_);
  start_ = number;
  Json order = message_of(message::kStart);
  order["start"] = number;
  tell_all(order);
}

void Coordinator::end_workers() {
  const std::scoped_lock lock(mutex_);
  start_ = -1;
  tell_all(message_of(message::kEndWorkers));
}

void Coordinator::finish(int code) {
  {
    std::unique_lock lock(mutex_);
    if (is_finished_) return;
    is_finished_ = true;
    changed_.wait_for(lock, kPatience, [&] { return present() + lost_ >= env_.size; });  // late ones too
    Json order = message_of(message::kEnd);
    order["code"] = code;
    tell_all(order);
  }
  thread_ = {};
  // their answer is the end of the connection
  for (const auto& agent : agents_) agent.channel->wait(std::chrono::seconds(3));
}

}  // namespace atelier::cluster
