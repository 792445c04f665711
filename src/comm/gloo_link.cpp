// Messages over c10d's ProcessGroupGloo. Only its constructor and its virtual functions are used: the Gloo
// headers that it needs come from the distribution and are older than the Gloo inside libtorch.
#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include "comm/gloo_link.h"

#include <csignal>
#include <stdexcept>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "comm/store.h"

namespace atelier::comm {
namespace {

constexpr std::chrono::milliseconds kHearsay{200};

// Gloo matches by a non-negative 32-bit tag. The size is mixed in, so that messages of different sizes never
// meet.
int tag_of(GlooLink::MessageNumber number, const at::Tensor& message) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;  // Fibonacci hashing: Knuth, TAOCP vol. 3, 6.4
  const uint64_t size_hash = (static_cast<uint64_t>(message.nbytes()) * kGolden) >> 46;  // 18 bits
  return static_cast<int>(size_hash * GlooLink::kUnderWay +
                          static_cast<uint64_t>(number % GlooLink::kUnderWay));
}

}  // namespace

GlooLink::PendingMessage::PendingMessage(std::shared_ptr<GlooLink> link, c10::intrusive_ptr<c10d::Work> work,
                                         int peer)
    : link_(std::move(link)), work_(std::move(work)), peer_(peer) {}

GlooLink::PendingMessage::PendingMessage(PendingMessage&&) noexcept = default;

GlooLink::PendingMessage& GlooLink::PendingMessage::operator=(PendingMessage&& other) noexcept {
  std::swap(link_, other.link_);
  std::swap(work_, other.work_);
  std::swap(peer_, other.peer_);
  return *this;
}

GlooLink::PendingMessage::~PendingMessage() {
  if (work_) link_->forget(work_.get());
}

void GlooLink::PendingMessage::wait(std::chrono::milliseconds at_most) {
  ENSURE(work_);
  std::string what = "the wait was broken off";
  bool is_complete = false;
  try {
    is_complete = work_->wait(at_most);
  } catch (const std::exception& error) {
    what = error.what();
  }
  link_->forget(work_.get());
  if (!is_complete) link_->fail(peer_, what);
  work_.reset();
}

GlooLink::GlooLink(const c10::intrusive_ptr<c10d::Store>& store, GroupPlace place,
                   std::shared_ptr<gloo::transport::Device> device, std::chrono::milliseconds timeout)
    : place_(std::move(place)), sent_(place_.key.ranks.size()), received_(place_.key.ranks.size()) {
  const auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(std::move(device));
  options->threads = 1;  // idle: messages are moved by the device's thread
  try {
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store_of(store, place_.key), place_.rank,
                                                        static_cast<int>(place_.key.ranks.size()), options);
  } catch (const std::exception& error) {
    throw Error(Kind::kPeer,
                str("group ", place_.key.name, ": its ranks could not be connected: ", error.what()));
  }
}

GlooLink::~GlooLink() = default;

GlooLink::PendingMessage GlooLink::send(const at::Tensor& message, int to, MessageNumber number) {
  return post(to, [&] {
    std::vector<at::Tensor> tensors{message};
    return gloo_->send(tensors, to, tag_of(number, message));
  });
}

GlooLink::PendingMessage GlooLink::recv(const at::Tensor& message, int from, MessageNumber number) {
  return post(from, [&] {
    std::vector<at::Tensor> tensors{message};
    return gloo_->recv(tensors, from, tag_of(number, message));
  });
}

GlooLink::PendingMessage GlooLink::post(int peer,
                                        const std::function<c10::intrusive_ptr<c10d::Work>()>& start) {
  std::string what;
  try {
    const std::lock_guard lock(mutex_);
    if (!poison_.empty()) throw_poison();
    if (broken_.contains(peer)) throw std::runtime_error("the connection broke before");
    auto work = start();
    waited_.emplace(work.get(), peer);
    return {shared_from_this(), std::move(work), peer};
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    what = error.what();
  }
  fail(peer, what);
}

void GlooLink::forget(c10d::Work* work) noexcept {
  const std::lock_guard lock(mutex_);
  waited_.erase(work);
}

void GlooLink::throw_poison() const {
  throw Error(Kind::kPeer, str("group ", place_.key.name, ": ", poison_));
}

void GlooLink::check_alive() {
  const std::lock_guard lock(mutex_);
  if (!poison_.empty()) throw_poison();
}

// Gloo forgets to tell a message that was being sent when its connection broke.
void GlooLink::break_pair(int peer) noexcept {
  const std::lock_guard lock(mutex_);
  if (!broken_.insert(peer).second) return;
  for (const auto& [work, to] : waited_) {
    if (to == peer) work->abort();
  }
}

void GlooLink::fail(int peer, const std::string& what) {
  const int culprit = place_.key.ranks[peer];
  const auto reason = str("rank ", culprit, " is gone or silent: ", what);
  if (failure_ == FailureScope::kBreaksPair) {
    break_pair(peer);
    throw Error(Kind::kPeer, reason);
  }
  bool is_first = false;
  {
    // The peer may have closed its connections because a third rank died: leave others time to say which.
    std::unique_lock lock(mutex_);
    if (alarm_) poisoned_.wait_for(lock, kHearsay, [&] { return !poison_.empty(); });
    is_first = poison_.empty();
  }
  poison(reason);
  if (is_first && alarm_) alarm_(culprit);
  const std::lock_guard lock(mutex_);
  throw_poison();
}

std::shared_ptr<gloo::transport::Device> gloo_device(const std::string& host) {
  try {
    return c10d::ProcessGroupGloo::createDeviceForHostname(host, /*lazyInit=*/false);
  } catch (const std::exception& error) {
    throw Error(Kind::kUsage, str("cannot listen on ", host, ": ", error.what()));
  }
}

void ignore_broken_pipes() {
  struct sigaction current {};
  if (sigaction(SIGPIPE, nullptr, &current) == 0 && current.sa_handler == SIG_DFL)
    std::signal(SIGPIPE, SIG_IGN);
}

void GlooLink::poison(const std::string& reason) noexcept {
  const std::lock_guard lock(mutex_);
  if (!poison_.empty()) return;
  poison_ = reason;
  poisoned_.notify_all();
  for (const auto& [work, peer] : waited_) work->abort();
}

}  // namespace atelier::comm
