// One Gloo process group, reduced to what is used of it: ordered messages between its ranks.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "comm/abortable_group.h"

namespace c10d {
class Store;
class Work;
class ProcessGroupGloo;
}  // namespace c10d
namespace gloo::transport {
class Device;
}

namespace atelier::comm {

// Its sockets, full mesh. The verbs are built on messages alone, not on Gloo's collectives, because (a) its
// uneven all-gather and list all-to-all throw, (b) a collective runs on a thread that nothing can wake, while
// a message's wait can be aborted, (c) sums then round in one order for every transport, and (d) less of
// Gloo's ABI is relied upon.
class GlooLink : public AbortableGroup, public std::enable_shared_from_this<GlooLink> {
 public:
  // Called once, with the global rank at fault, when this rank finds the group broken.
  using Alarm = std::function<void(int culprit)>;
  // A message that fails breaks the whole group, since later verbs could not match; or only what passes
  // between its two ranks.
  enum class FailureScope { kBreaksGroup, kBreaksPair };
  // A message under way. wait() throws Error(kPeer); afterwards, or once destroyed, it is forgotten.
  class PendingMessage {
   public:
    PendingMessage(std::shared_ptr<GlooLink> link, c10::intrusive_ptr<c10d::Work> work, int peer);
    PendingMessage(PendingMessage&&) noexcept;
    PendingMessage& operator=(PendingMessage&&) noexcept;
    ~PendingMessage();
    // At most this long; none: the link's time-out.
    void wait(std::chrono::milliseconds at_most = std::chrono::milliseconds(0));

   private:
    std::shared_ptr<GlooLink> link_;
    c10::intrusive_ptr<c10d::Work> work_;
    int peer_ = -1;  // within the group
  };
  // The tag under which two ranks agree to exchange one message.
  using MessageNumber = int64_t;
  static constexpr MessageNumber kUnderWay = 4096;

  // Blocks until all ranks of the group are connected. Throws Error(kPeer).
  GlooLink(const c10::intrusive_ptr<c10d::Store>& store, GroupPlace place,
           std::shared_ptr<gloo::transport::Device> device, std::chrono::milliseconds timeout);
  ~GlooLink() override;
  // Both before the first message.
  void on_alarm(Alarm alarm) { alarm_ = std::move(alarm); }
  void on_failure(FailureScope failure) { failure_ = failure; }

  // Messages of one pair are numbered by call, on both sides; at most kUnderWay of a pair may be under way. A
  // message is received whole or, where the sizes differ, never: Gloo itself would end the process or leave
  // the rest of the buffer as it was.
  MessageNumber next_send(int to) { return sent_[to]++; }
  MessageNumber next_recv(int from) { return received_[from]++; }
  PendingMessage send(const at::Tensor& message, int to, MessageNumber number);  // flat, not empty
  PendingMessage recv(const at::Tensor& message, int from, MessageNumber number);

  void check_alive();
  void poison(const std::string& reason) noexcept override;
  const GroupPlace& place() const override { return place_; }

 private:
  PendingMessage post(int peer, const std::function<c10::intrusive_ptr<c10d::Work>()>& start);
  void forget(c10d::Work* work) noexcept;
  void break_pair(int peer) noexcept;
  [[noreturn]] void fail(int peer, const std::string& what);
  [[noreturn]] void throw_poison() const;  // with mutex_ held

  GroupPlace place_;
  Alarm alarm_;
  FailureScope failure_ = FailureScope::kBreaksGroup;
  std::mutex mutex_;  // ProcessGroupGloo::send counts without a lock of its own
  std::condition_variable poisoned_;
  std::string poison_;
  std::set<int> broken_;                        // peers; kBreaksPair only
  std::map<c10d::Work*, int> waited_;           // work and peer: to be woken
  std::vector<MessageNumber> sent_, received_;  // [size]; only the rank's own calls count
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
};

// Sockets that listen on this address, for any number of links. Throws Error(kUsage) where it is not this
// host's.
std::shared_ptr<gloo::transport::Device> gloo_device(const std::string& host);
// A write to a dead peer must be an error, not the end of the process. A handler that the program has set
// stays.
void ignore_broken_pipes();

}  // namespace atelier::comm
