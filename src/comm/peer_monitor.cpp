// The words that ranks say to each other, and what they do on hearing them. Who notices a death tells the
// others before it leaves itself: otherwise those would name the wrong rank.
#include "comm/peer_monitor.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"

namespace atelier::comm {
namespace {

constexpr std::chrono::hours kLongerThanAnyRun{24 * 365};
constexpr std::chrono::seconds kFarewell{2};

std::string reason(PeerStatus status, int64_t culprit) {
  switch (status) {
    case PeerStatus::kLeft:
      return "this rank has left";
    case PeerStatus::kAborted:
      return str("rank ", culprit, " aborted");
    case PeerStatus::kGone:
      return str("rank ", culprit, " is gone: its connection broke");
    case PeerStatus::kSilent:
      return str("rank ", culprit, " is gone or silent");
  }
  return "";
}

// The same on all ranks (FNV-1a), and positive.
int64_t group_id(const GroupKey& key) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&](std::string_view bytes) {
    for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  };
  mix(text_of(key));
  return static_cast<int64_t>(hash >> 1) | 1;
}

}  // namespace

PeerMonitor::PeerMonitor(std::shared_ptr<GlooLink> link) : link_(std::move(link)) {
  link_->on_failure(GlooLink::FailureScope::kBreaksPair);  // one dead peer leaves others to be told about it
  const auto& place = link_->place();
  for (int peer = 0; peer < std::ssize(place.key.ranks); ++peer) {
    if (peer == place.rank) continue;
    auto heard = at::empty({3}, at::kLong);
    auto ticket = link_->recv(heard, peer, link_->next_recv(peer));
    listeners_.emplace_back(
        [this, peer, heard, next = std::move(ticket)]() mutable { listen(peer, std::move(next), heard); });
  }
}

PeerMonitor::~PeerMonitor() {
  is_leaving_ = true;
  tell_all({PeerStatus::kLeft, link_->place().rank});
  const auto deadline = std::chrono::steady_clock::now() + kFarewell;
  std::vector<GlooLink::PendingMessage> told;
  {
    const std::lock_guard lock(telling_);
    told.swap(told_);
  }
  for (auto& ticket : told) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    try {
      // Closing the connection before everybody has heard it would look like a death.
      ticket.wait(std::max(left, std::chrono::milliseconds(1)));
    } catch (const Error&) {
    }
  }
  link_->poison(reason(PeerStatus::kLeft, link_->place().rank));
  for (auto& listener : listeners_) listener.join();
}

void PeerMonitor::listen(int peer, GlooLink::PendingMessage ticket, const at::Tensor& heard) {
  try {
    for (;;) {
      ticket.wait(kLongerThanAnyRun);
      const auto* const numbers = heard.const_data_ptr<int64_t>();
      const Notice notice{static_cast<PeerStatus>(numbers[0]), numbers[1], numbers[2]};
      if (notice.status == PeerStatus::kLeft) return;
      obey(notice);  // first: the peer may be gone before it can be listened to again
      ticket = link_->recv(heard, peer, link_->next_recv(peer));
    }
  } catch (const Error&) {
    if (!is_leaving_) poison_all({PeerStatus::kGone, peer}, Relay::kTell);
  }
}

void PeerMonitor::obey(const Notice& notice) {
  if (notice.group == kAll) return poison_all(notice, Relay::kKeep);
  std::shared_ptr<AbortableGroup> group;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = groups_.find(notice.group); found != groups_.end()) {
      group = found->second.lock();
    } else {
      aborted_.emplace(notice.group, reason(notice.status, notice.culprit));
    }
  }
  if (group) group->poison(reason(notice.status, notice.culprit));
}

void PeerMonitor::tell(int peer, const Notice& notice) noexcept {
  try {
    const auto message = at::empty({3}, at::kLong);
    auto* const numbers = message.mutable_data_ptr<int64_t>();
    numbers[0] = static_cast<int64_t>(notice.status);
    numbers[1] = notice.culprit;
    numbers[2] = notice.group;
    const std::lock_guard lock(telling_);
    if (is_leaving_ && notice.status != PeerStatus::kLeft) return;  // nobody listens after a good-bye
    told_.push_back(link_->send(message, peer, link_->next_send(peer)));
  } catch (const std::exception&) {  // the peer is gone already
  }
}

void PeerMonitor::tell_all(const Notice& notice) noexcept {
  const auto& place = link_->place();
  for (int peer = 0; peer < std::ssize(place.key.ranks); ++peer) {
    if (peer != place.rank) tell(peer, notice);
  }
}

void PeerMonitor::poison_all(const Notice& notice, Relay relay) noexcept {
  const auto why = reason(notice.status, notice.culprit);
  std::vector<std::shared_ptr<AbortableGroup>> groups;
  {
    const std::lock_guard lock(mutex_);
    if (!poison_.empty()) return;
    poison_ = why;
    for (const auto& [name, known] : groups_) groups.push_back(known.lock());
  }
  // First: poison lets this rank's own thread go, and with it the connections over which to tell.
  if (relay == Relay::kTell) tell_all(notice);
  for (const auto& group : groups) {
    if (group) group->poison(why);
  }
}

void PeerMonitor::add(const std::shared_ptr<AbortableGroup>& group) {
  const auto notice = group_id(group->place().key);
  std::string why;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(groups_, [](const auto& known) { return known.second.expired(); });
    groups_[notice] = group;
    why = poison_;
    if (const auto found = aborted_.find(notice); why.empty() && found != aborted_.end()) why = found->second;
  }
  if (!why.empty()) group->poison(why);  // without the lock: it may take as long as a transport's time-out
}

void PeerMonitor::check_alive() {
  const std::lock_guard lock(mutex_);
  if (!poison_.empty()) throw Error(Kind::kPeer, poison_);
}

void PeerMonitor::abort_group(AbortableGroup& group, int culprit, PeerStatus status) noexcept {
  group.poison(reason(status, culprit));
  const auto& place = group.place();
  for (int member = 0; member < std::ssize(place.key.ranks); ++member) {
    if (member != place.rank) tell(place.key.ranks[member], {status, culprit, group_id(place.key)});
  }
}

void PeerMonitor::abort_all() noexcept {
  poison_all({PeerStatus::kAborted, link_->place().rank}, Relay::kTell);
}

}  // namespace atelier::comm
