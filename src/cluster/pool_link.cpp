#include "cluster/pool_link.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "cluster/protocol.h"

namespace atelier::cluster {
namespace {

constexpr std::chrono::milliseconds kHeartbeat{500};

}  // namespace

PoolLink::PoolLink(Channel& channel, const Whereabouts& whereabouts, StepGate& gate)
    : channel_(channel), whereabouts_(whereabouts), gate_(gate), thread_([this] { work(); }) {}

PoolLink::~PoolLink() {
  is_over_ = true;
  thread_.join();
}

Json PoolLink::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !orders_.empty(); });
  Json order = std::move(orders_.front());
  orders_.pop_front();
  return order;
}

void PoolLink::wait_for_end() {
  while (kind_of(wait()) != message::kStop) continue;
  ::_exit(1);
}

void PoolLink::work() {
  auto next = std::chrono::steady_clock::now();
  while (!is_over_) {
    if (std::chrono::steady_clock::now() >= next) {
      next = std::chrono::steady_clock::now() + kHeartbeat;
      beat();
    }
    pollfd entry{channel_.fd(), POLLIN, 0};
    ::poll(&entry, 1, static_cast<int>(kHeartbeat.count()) / 5);
    if (entry.revents) listen();
  }
}

void PoolLink::beat() {
  const int step = gate_.begun();
  Json alive = message_of(message::kAlive, whereabouts_.run);
  alive["phase"] = whereabouts_.phase.load();
  alive["step"] = step == StepGate::kAllBegun ? 0 : step;
  alive["collectives"] = whereabouts_.collectives.load();
  if (!channel_.send(alive)) ::_exit(1);
}

void PoolLink::listen() {
  try {
    const bool is_open = channel_.take_in();
    while (auto order = channel_.next()) obey(std::move(*order));
    if (!is_open) ::_exit(1);
  } catch (const std::exception& e) {
    log::error(e.what());
    ::_exit(1);
  }
}

void PoolLink::obey(Json order) {
  const auto kind = kind_of(order);
  if (kind == message::kCancel) {
    const auto run = order.at("run").get<int64_t>();
    Json held = message_of(message::kHeld, run);
    held["step"] = gate_.hold(run);
    channel_.send(held);
  } else if (kind == message::kStopBefore) {
    gate_.stop_before(order.at("run").get<int64_t>(), order.at("step").get<int>());
  } else {
    const std::scoped_lock lock(mutex_);
    orders_.push_back(std::move(order));
    changed_.notify_all();
  }
}

}  // namespace atelier::cluster
