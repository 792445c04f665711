// Who is still there: one extra connection per pair of processes, over which ranks say good-bye or that they
// abort.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/gloo_link.h"

namespace atelier::comm {

// What became of a rank.
enum class PeerStatus : int64_t { kLeft, kAborted, kGone, kSilent };

// Without it a rank would notice a lost peer only when it talks to that peer itself. One thread per peer
// waits for that peer's word; a connection that breaks before the good-bye means that the peer died.
class PeerMonitor {
 public:
  // Takes a link of all ranks that nobody else uses.
  explicit PeerMonitor(std::shared_ptr<GlooLink> link);
  ~PeerMonitor();  // says good-bye

  // The group is poisoned when one of the run's ranks dies or aborts, or when a member aborts it.
  void add(const std::shared_ptr<AbortableGroup>& group);
  // Poisons the group here and at its other ranks.
  void abort_group(AbortableGroup& group, int culprit, PeerStatus status) noexcept;
  void abort_all() noexcept;
  void check_alive();

 private:
  void listen(int peer, GlooLink::PendingMessage ticket, const at::Tensor& notice);
  struct Notice {
    PeerStatus status;
    int64_t culprit;       // global rank
    int64_t group = kAll;  // group_word
  };
  static constexpr int64_t kAll = 0;
  void obey(const Notice& notice);
  void tell(int peer, const Notice& notice) noexcept;
  void tell_all(const Notice& notice) noexcept;
  enum class Relay { kTell, kKeep };
  void poison_all(const Notice& notice, Relay relay) noexcept;  // only the first time

  std::shared_ptr<GlooLink> link_;
  std::atomic<bool> is_leaving_ = false;
  std::mutex mutex_;
  std::string poison_;                                       // of all groups
  std::map<int64_t, std::weak_ptr<AbortableGroup>> groups_;  // by group_word
  std::map<int64_t, std::string> aborted_;  // groups whose abort came before this rank had opened them
  std::mutex telling_;
  std::vector<GlooLink::PendingMessage> told_;
  std::vector<std::thread> listeners_;
};

}  // namespace atelier::comm
