// Rendezvous of threads: who asks last copies for everybody, waiters sleep on one condition variable.
#include "comm/local_group.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace atelier::comm {

LocalGroup::LocalGroup(std::string name, int size, LocalOptions options)
    : name_(std::move(name)), size_(size), options_(options), left_(size) {}

void LocalGroup::throw_poison(const Lock&) const {
  throw Error(Kind::kPeer, str("group ", name_, ": ", poison_));
}

void LocalGroup::check_alive(const Lock& lock) const {
  if (!poison_.empty()) throw_poison(lock);
}

void LocalGroup::check_alive() {
  check_alive(Lock(mutex_));
}

void LocalGroup::fail(const Lock& lock, const std::string& reason) {
  if (poison_.empty()) poison_ = reason;
  changed_.notify_all();
  throw_poison(lock);
}

void LocalGroup::poison(const std::string& reason) noexcept {
  const Lock lock(mutex_);
  if (poison_.empty()) poison_ = reason;
  changed_.notify_all();
}

void LocalGroup::leave(int rank) noexcept {
  const Lock lock(mutex_);
  left_[rank] = true;
  changed_.notify_all();
}

bool LocalGroup::hopeless(const Lock&, const Pending& pending) const {
  return std::any_of(pending.awaited.begin(), pending.awaited.end(), [&](int rank) { return left_[rank]; });
}

void LocalGroup::run(Lock& lock, Pending& pending, const std::function<void()>& copy) {
  pending.state = Pending::PendingState::kRunning;
  lock.unlock();  // the copying itself must not hold up ranks that talk about something else
  copy();
  lock.lock();
  pending.state = Pending::PendingState::kDone;
  changed_.notify_all();
}

std::shared_ptr<LocalGroup::Collective> LocalGroup::collect(int rank, int64_t turn, LocalCall call) {
  Lock lock(mutex_);
  check_alive(lock);
  auto& slot = collectives_[turn];
  if (!slot) {
    slot = std::make_shared<Collective>();
    slot->calls.resize(size_);
    slot->awaited.resize(size_);
    std::iota(slot->awaited.begin(), slot->awaited.end(), 0);
  }
  auto mine = slot;
  mine->calls[rank] = std::move(call);
  std::erase(mine->awaited, rank);
  if (!mine->awaited.empty()) return mine;
  collectives_.erase(turn);
  if (const auto why = misfit(mine->calls); !why.empty()) fail(lock, str("the ranks disagree: ", why));
  run(lock, *mine, [&] { perform(mine->calls); });
  return mine;
}

std::shared_ptr<LocalGroup::Pending> LocalGroup::match_message(int from, int to,
                                                               std::shared_ptr<Message> mine) {
  Lock lock(mutex_);
  check_alive(lock);
  auto& queue = mail_[{from, to}];
  if (queue.empty() || queue.front()->is_send == mine->is_send) {
    mine->awaited = {mine->is_send ? to : from};
    queue.push_back(mine);
    return mine;
  }
  const auto other = queue.front();
  queue.pop_front();
  const auto& sent = mine->is_send ? mine->tensor : other->tensor;
  const auto& expected = mine->is_send ? other->tensor : mine->tensor;
  if (sent.scalar_type() != expected.scalar_type() || sent.numel() != expected.numel()) {
    fail(lock,
         str("rank ", from, " sends ", sent.numel(), " of ", c10::toString(sent.scalar_type()), ", rank ", to,
             " expects ", expected.numel(), " of ", c10::toString(expected.scalar_type())));
  }
  run(lock, *other, [&] { std::memcpy(expected.data_ptr(), sent.data_ptr(), sent.nbytes()); });
  return nullptr;
}

std::shared_ptr<LocalGroup::Pending> LocalGroup::send(int from, int to, const at::Tensor& message,
                                                      Keep keep) {
  auto mine = std::make_shared<Message>();
  mine->is_send = true;
  mine->tensor = keep == Keep::kCopy ? message.clone() : message;
  auto pending = match_message(from, to, std::move(mine));
  return keep == Keep::kCopy ? nullptr : pending;
}

std::shared_ptr<LocalGroup::Pending> LocalGroup::recv(int to, int from, const at::Tensor& message) {
  auto mine = std::make_shared<Message>();
  mine->tensor = message;
  return match_message(from, to, std::move(mine));
}

void LocalGroup::wait(const std::shared_ptr<Pending>& pending) {
  if (!pending) return;
  using PendingState = Pending::PendingState;
  Lock lock(mutex_);
  // A running copy is waited for even in a poisoned group: it writes into the caller's memory.
  const bool in_time = changed_.wait_for(lock, options_.timeout, [&] {
    if (pending->state == PendingState::kDone) return true;
    return pending->state == PendingState::kAsking && (!poison_.empty() || hopeless(lock, *pending));
  });
  if (pending->state == PendingState::kDone) return;
  if (poison_.empty() && hopeless(lock, *pending)) {
    const auto gone =
        *std::find_if(pending->awaited.begin(), pending->awaited.end(), [&](int r) { return left_[r]; });
    fail(lock, str("rank ", gone, " has left without answering"));
  }
  if (!in_time) fail(lock, str("a peer was silent for ", options_.timeout.count(), " ms"));
  check_alive(lock);
}

}  // namespace atelier::comm
