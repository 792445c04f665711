// A launched process other than rank 0's: starts and ends its workers when rank 0 says so.
#include <poll.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cluster/launch/launch.h"
#include "cluster/sockets.h"

namespace atelier::cluster {
namespace {

constexpr std::chrono::seconds kSearch{120};  // for rank 0, which may still be starting
constexpr std::chrono::milliseconds kGrace{1000};

class NodeAgent {
 public:
  explicit NodeAgent(const LauncherEnv& env) : env_(env) {}

  int run() {
    if (!find()) {
      log::error(str("rank ", env_.rank, ": rank 0 was not found at ", env_.host, ", ports ", env_.port + 1,
                     " to ", env_.port + LauncherEnv::kPorts, ", in ", kSearch.count(),
                     " s; are MASTER_ADDR and MASTER_PORT the same for all?"));
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
        end_workers();
        log::error(str("rank ", env_.rank, ": the process of rank 0 is gone"));
        return 1;
      }
      report_ended();
    }
  }

 private:
  struct Worker {
    int rank = 0;
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
    const auto end = std::chrono::steady_clock::now() + kSearch;
    while (std::chrono::steady_clock::now() < end) {
      for (int i = 1; i <= LauncherEnv::kPorts; ++i) {
        if (greets(env_.port + i)) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }

  bool greets(int port) {
    auto fd = connect_to(env_.host, port);
    if (fd.get() < 0) return false;
    try {
      auto channel = std::make_unique<Channel>(fd.release(), Channel::Side::kWorker, env_.key);
      channel->send(hello(env_.rank, env_.ranks, -1));
      const auto answer = channel->wait(std::chrono::seconds(15));
      if (!answer || kind_of(*answer) != message::kWelcome) return false;
      channel_ = std::move(channel);
      port_ = port;
      return true;
    } catch (const Error&) {
      return false;  // somebody else's port
    }
  }

  std::optional<int> obey(const Json& order) {
    const std::string kind = kind_of(order);
    if (kind == message::kStart) start(order.at("start").get<int>());
    if (kind == message::kEndWorkers) end_workers();
    if (kind != message::kEnd) return std::nullopt;
    end_workers();
    return order.at("code").get<int>();
  }

  void start(int number) {
    end_workers();
    number_ = number;
    for (int i = 0; i < env_.ranks; ++i) {
      const auto socket = connect_to(env_.host, port_);
      if (socket.get() < 0) return;  // rank 0 is gone: the end of its connection says so
      const Json identity{{"key", env_.key}, {"hello", hello(env_.rank + i, 1, number)}};
      workers_.push_back(
          {env_.rank + i,
           Child::start({.socket = socket.get(), .environment = {"ATELIER_WORKER=" + identity.dump()}})});
    }
  }

  void end_workers() {
    std::vector<Child*> children;
    for (auto& w : workers_) children.push_back(&w.child);
    end_all(children, kGrace);
    workers_.clear();
  }

  void report_ended() {
    for (auto w = workers_.begin(); w != workers_.end();) {
      const auto status = w->child.status();
      if (!status) {
        ++w;
        continue;
      }
      Json message = message_of(message::kExited);
      message["rank"] = w->rank;
      message["start"] = number_;
      message["what"] = status_text(*status);
      channel_->send(message);
      w = workers_.erase(w);
    }
  }

  const LauncherEnv env_;
  std::unique_ptr<Channel> channel_;
  int port_ = 0, number_ = 0;
  std::vector<Worker> workers_;
};

}  // namespace

int run_node_agent(const LauncherEnv& env) {
  try {
    return NodeAgent(env).run();
  } catch (const std::exception& e) {
    log::error(str("rank ", env.rank, ": ", e.what()));
    return 1;
  }
}

}  // namespace atelier::cluster
