// The watch alone: what it does to groups that it is given.
#include "comm/peer_monitor.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <future>
#include <stdexcept>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "base/error.h"
#include "comm/processes.h"
#include "comm/store.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using processes::Ranks;

// A group whose poisoning takes as long as another thread needs to ask the watch something.
class Asking : public AbortableGroup {
 public:
  Asking(PeerMonitor& watch, std::string name) : monitor_(watch), place_{{{0}, std::move(name)}, 0} {}
  const GroupPlace& place() const override { return place_; }
  void poison(const std::string& reason) noexcept override {
    reason_ = reason;
    asked_ = std::async(std::launch::async, [this] {
      try {
        monitor_.check_alive();
      } catch (const Error&) {
      }
    });
    is_answered_ = asked_.wait_for(5s) == std::future_status::ready;
  }
  void check() const {
    if (reason_ != "rank 0 aborted") throw std::runtime_error("poisoned with: " + reason_);
    if (!is_answered_) throw std::runtime_error("the watch was locked while it poisoned");
  }

 private:
  PeerMonitor& monitor_;
  GroupPlace place_;
  std::string reason_;
  bool is_answered_ = false;
  std::future<void> asked_;
};

TEST(PeerMonitor, IsFreeWhileItPoisonsAGroup) {
  // In a process of its own: this one must stay without threads for the tests that fork.
  Ranks ranks(1, 10s, [](const Rendezvous& rendezvous) {
    const auto link = std::make_shared<GlooLink>(comm::open_store(rendezvous), GroupPlace{{{0}, "watch"}, 0},
                                                 gloo_device("127.0.0.1"), rendezvous.timeout);
    PeerMonitor watch(link);
    const auto early = std::make_shared<Asking>(watch, "early"),
               late = std::make_shared<Asking>(watch, "late");
    watch.add(early);
    watch.abort_all();
    early->check();
    watch.add(late);
    late->check();
  });
  const auto outcome = ranks.join(0);
  EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0) << outcome.errors;
}

}  // namespace
}  // namespace atelier::comm
