// A launched process other than rank 0's: starts and ends its workers when rank 0 says so.
#include <poll.h>
#include <signal.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cluster/launch/launch.h"
#include "cluster/sockets.h"

namespace atelier::cluster {
namespace {

constexpr std::chrono::seconds kAnswer{15};  // of rank 0's process
// At one port: a firewall, or a host that is not up, says nothing.
constexpr std::chrono::seconds kConnect{2};

class NodeAgent {
 public:
  NodeAgent(const LauncherEnv& env, std::chrono::seconds search) : env_(env), search_(search) {}

  int run() {
    if (!find()) {
      log::error(str("rank ", env_.rank, ": rank 0 was not found ", meeting_text(env_), " in ",
                     search_.count(), " s; are MASTER_ADDR and MASTER_PORT the same for all?",
                     problem_.empty() ? "" : " At last: " + problem_));
      return 1;
    }
    for (;;) {
      pollfd entry{channel_->fd(), POLLIN, 0};
      ::poll(&entry, 1, 50);
      const bool is_open = !entry.revents || channel_->take_in();
      while (const auto order = channel_->next()) {
        if (const auto code = obey(*order)) return *code;
      }
      if (!is_open) {
        log::error(str("rank ", env_.rank, ": the process of rank 0 is gone"));
        return 1;
      }
      report_ended();
    }
  }

 private:
  struct Worker {
    int start = 0;
    Child child;
  };

  Json hello(int rank, int ranks, int start) const {
    Json message = message_of(message::kHello);
    message["rank"] = rank;
    message["ranks"] = ranks;
    message["local_rank"] = env_.local_rank + rank - env_.rank;
    message["local_size"] = env_.local_size;
    message["start"] = start;
    message["host"] = own_host_name();
    return message;
  }

  bool find() {
    const auto begin = std::chrono::steady_clock::now(), end = begin + search_;
    bool has_told = false;
    while (std::chrono::steady_clock::now() < end) {
      if (!has_told && std::chrono::steady_clock::now() - begin > Coordinator::kTold) {
        has_told = true;
        log::warning(str("rank ", env_.rank, " of ", env_.size, " is waiting for rank 0 ", meeting_text(env_),
                         "; where no other process is to come, unset these variables"));
      }
      for (int i = 1; i <= LauncherEnv::kPorts && std::chrono::steady_clock::now() < end; ++i) {
        if (greets(env_.port + i)) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }

  // Names of hosts are tried again too: they may be made known only once their host is up.
  bool greets(int port) {
    try {
      auto fd = connect_to(env_.host, port, kConnect);
      problem_.clear();
      if (fd.get() < 0) return false;
      auto channel = std::make_unique<Channel>(fd.release(), Channel::Side::kWorker, env_.key);
      if (!channel->greet(kAnswer)) return false;
      channel->send(hello(env_.rank, env_.ranks, -1));
      const auto answer = channel->wait(kAnswer);
      if (!answer || kind_of(*answer) != message::kWelcome) return false;
      channel_ = std::move(channel);
      port_ = port;
      return true;
    } catch (const Error& e) {
      problem_ = e.what();  // somebody else's port, or no host of this name
      return false;
    }
  }

  std::optional<int> obey(const Json& order) {
    const std::string kind = kind_of(order);
    if (kind == message::kEnd) return order.at("code").get<int>();
    const auto rank = order.at("rank").get<int>();
    if (kind == message::kStart) start(rank, order.at("start").get<int>());
    if (kind == message::kEndWorker) {
      // not waited for: the orders to end the others of its group come next
      if (const auto worker = workers_.find(rank); worker != workers_.end())
        worker->second.child.signal(SIGKILL);
    }
    return std::nullopt;
  }

  void start(int rank, int number) {
    workers_.erase(rank);  // waits for its end: the next one needs its memory
    const auto socket = connect_to(env_.host, port_, kAnswer);
    if (socket.get() < 0) return;  // rank 0 is gone: the end of its connection says so
    const Json identity{{"key", env_.key}, {"hello", hello(rank, 1, number)}};
    workers_.emplace(rank,
                     Worker{number, Child::start({.socket = socket.get(),
                                                  .environment = {"ATELIER_WORKER=" + identity.dump()}})});
  }

  void report_ended() {
    for (auto w = workers_.begin(); w != workers_.end();) {
      const auto status = w->second.child.status();
      if (!status) {
        ++w;
        continue;
      }
      Json message = message_of(message::kExited);
      message["rank"] = w->first;
      message["start"] = w->second.start;
      message["what"] = status_text(*status);
      channel_->send(message);
      w = workers_.erase(w);
    }
  }

  const LauncherEnv env_;
  const std::chrono::seconds search_;  // for rank 0, which may still be starting
  std::string problem_;                // of the last try
  std::unique_ptr<Channel> channel_;
  int port_ = 0;
  std::map<int, Worker> workers_;  // by rank
};

}  // namespace

int run_node_agent(const LauncherEnv& env, std::chrono::seconds search) {
  try {
    return NodeAgent(env, search).run();
  } catch (const std::exception& e) {
    log::error(str("rank ", env.rank, ": ", e.what()));
    return 1;
  }
}

}  // namespace atelier::cluster
