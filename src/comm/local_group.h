// What the threads of one local group share: collectives and messages that complete when the last rank has
// asked.
#pragma once
#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/comm.h"

namespace atelier::comm {

// One rank's part in a collective. Which fields count depends on the verb.
struct LocalCall {
  std::string_view verb;
  at::Tensor out, in;
  std::vector<int64_t> out_split, in_split;
  int64_t number = 0;  // broadcast: the root; window: bytes
};

// Nothing here needs a thread of its own: whoever asks last does the copying for everybody, so that progress
// depends on the ranks' calls and never on their waits. All functions may be called from any thread.
class LocalGroup {
 public:
  // Something a rank waits for.
  struct Pending {
    enum class PendingState { kAsking, kRunning, kDone } state = PendingState::kAsking;
    std::vector<int> awaited;  // ranks that have not asked yet
  };
  struct Collective : Pending {
    std::vector<LocalCall> calls;  // [size]
  };

  LocalGroup(std::string name, int size, LocalOptions options);

  // turn: the how-manieth collective of the rank this is. Throws Error(kPeer) where the ranks' calls of one
  // turn do not fit each other.
  std::shared_ptr<Collective> collect(int rank, int64_t turn, LocalCall call);
  enum class Keep { kCopy, kReference };
  // Null when there is nothing to wait for.
  std::shared_ptr<Pending> send(int from, int to, const at::Tensor& message, Keep keep);
  std::shared_ptr<Pending> recv(int to, int from, const at::Tensor& message);

  // Throws Error(kPeer) after poison(), when an awaited rank has left, or after the time-out.
  void wait(const std::shared_ptr<Pending>& pending);
  void check_alive();
  void poison(const std::string& reason) noexcept;  // the first reason is kept
  void leave(int rank) noexcept;                    // this rank will ask for nothing more

 private:
  struct Message : Pending {
    at::Tensor tensor;
    bool is_send = false;
  };
  using Lock = std::unique_lock<std::mutex>;

  std::shared_ptr<Pending> match_message(int from, int to, std::shared_ptr<Message> mine);
  void check_alive(const Lock&) const;
  [[noreturn]] void throw_poison(const Lock&) const;
  [[noreturn]] void fail(const Lock&, const std::string& reason);
  void run(Lock& lock, Pending& pending, const std::function<void()>& copy);
  bool hopeless(const Lock&, const Pending& pending) const;

  std::string name_;
  int size_;
  LocalOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string poison_;
  std::vector<bool> left_;
  std::map<int64_t, std::shared_ptr<Collective>> collectives_;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>>
      mail_;  // by (from, to); all sends or all recvs
};

// Why these calls, one per rank, do not fit each other; empty when they do.
std::string misfit(const std::vector<LocalCall>& calls);
// Moves the data of a complete, fitting collective.
void perform(const std::vector<LocalCall>& calls);

}  // namespace atelier::comm
