// The words that ranks say to each other, and what they do on hearing them. Who notices a death tells the
// others before it leaves itself: otherwise those would name the wrong rank.
#include "comm/gloo_watch.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"

namespace atelier::comm {
namespace {

constexpr std::chrono::hours kLongerThanAnyRun{24 * 365};
constexpr std::chrono::seconds kFarewell{2};

std::string reason(Fate fate, int64_t culprit) {
  switch (fate) {
    case Fate::kLeft:
      return "this rank has left";
    case Fate::kAborted:
      return str("rank ", culprit, " aborted");
    case Fate::kGone:
      return str("rank ", culprit, " is gone: its connection broke");
    case Fate::kSilent:
      return str("rank ", culprit, " is gone or silent");
  }
  return "";
}

// The same on all ranks (FNV-1a), and positive.
int64_t group_word(const GroupKey& key) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&](std::string_view bytes) {
    for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  };
  mix(str(key.name, "/", key.occurrence));
  for (const int rank : key.ranks) mix(str("/", rank));
  return static_cast<int64_t>(hash >> 1) | 1;
}

}  // namespace

GlooWatch::GlooWatch(std::shared_ptr<GlooLink> link) : link_(std::move(link)) {
  const auto& place = link_->place();
  for (int peer = 0; peer < std::ssize(place.key.ranks); ++peer) {
    if (peer == place.rank) continue;
    auto heard = at::empty({3}, at::kLong);
    auto ticket = link_->recv(heard, peer, link_->next_recv(peer));
    listeners_.emplace_back(
        [this, peer, heard, next = std::move(ticket)]() mutable { listen(peer, std::move(next), heard); });
  }
}

GlooWatch::~GlooWatch() {
  is_leaving_ = true;
  tell_all({Fate::kLeft, link_->place().rank});
  const auto deadline = std::chrono::steady_clock::now() + kFarewell;
  for (auto& ticket : told_) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    try {
      // Closing the connection before everybody has heard it would look like a death.
      ticket.wait(std::max(left, std::chrono::milliseconds(1)));
    } catch (const Error&) {
    }
  }
  link_->poison(reason(Fate::kLeft, link_->place().rank));
  for (auto& listener : listeners_) listener.join();
}

void GlooWatch::listen(int peer, GlooLink::Ticket ticket, at::Tensor heard) {
  try {
    for (;;) {
      ticket.wait(kLongerThanAnyRun);
      const auto* const numbers = heard.const_data_ptr<int64_t>();
      const Word word{static_cast<Fate>(numbers[0]), numbers[1], numbers[2]};
      if (word.fate == Fate::kLeft) return;
      obey(word);  // first: the peer may be gone before it can be listened to again
      ticket = link_->recv(heard, peer, link_->next_recv(peer));
    }
  } catch (const Error&) {
    const Word word{Fate::kGone, peer};
    if (!is_leaving_ && poison_all(word)) tell_all(word);
  }
}

void GlooWatch::obey(const Word& word) {
  if (word.group == kAll) {
    poison_all(word);
    return;
  }
  std::shared_ptr<GlooLink> link;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = links_.find(word.group); found != links_.end()) {
      link = found->second.lock();
    } else {
      aborted_.emplace(word.group, reason(word.fate, word.culprit));
    }
  }
  if (link) link->poison(reason(word.fate, word.culprit));
}

void GlooWatch::tell(int peer, const Word& word) noexcept {
  try {
    const auto message = at::empty({3}, at::kLong);
    auto* const numbers = message.mutable_data_ptr<int64_t>();
    numbers[0] = static_cast<int64_t>(word.fate);
    numbers[1] = word.culprit;
    numbers[2] = word.group;
    const std::lock_guard lock(telling_);
    told_.push_back(link_->send(message, peer, link_->next_send(peer)));
  } catch (const std::exception&) {  // the peer is gone already
  }
}

void GlooWatch::tell_all(const Word& word) noexcept {
  const auto& place = link_->place();
  for (int peer = 0; peer < std::ssize(place.key.ranks); ++peer) {
    if (peer != place.rank) tell(peer, word);
  }
}

bool GlooWatch::poison_all(const Word& word) noexcept {
  const auto why = reason(word.fate, word.culprit);
  std::vector<std::shared_ptr<GlooLink>> links;
  {
    const std::lock_guard lock(mutex_);
    if (!poison_.empty()) return false;
    poison_ = why;
    for (const auto& [name, known] : links_) links.push_back(known.lock());
  }
  for (const auto& link : links) {
    if (link) link->poison(why);
  }
  return true;
}

void GlooWatch::add(const std::shared_ptr<GlooLink>& link) {
  const auto word = group_word(link->place().key);
  const std::lock_guard lock(mutex_);
  std::erase_if(links_, [](const auto& known) { return known.second.expired(); });
  links_[word] = link;
  if (!poison_.empty()) link->poison(poison_);
  if (const auto found = aborted_.find(word); found != aborted_.end()) link->poison(found->second);
}

void GlooWatch::check_alive() {
  const std::lock_guard lock(mutex_);
  if (!poison_.empty()) throw Error(Kind::kPeer, poison_);
}

void GlooWatch::abort_group(GlooLink& link, int culprit, Fate fate) noexcept {
  link.poison(reason(fate, culprit));
  const auto& place = link.place();
  for (int member = 0; member < std::ssize(place.key.ranks); ++member) {
    if (member != place.rank) tell(place.key.ranks[member], {fate, culprit, group_word(place.key)});
  }
}

void GlooWatch::abort_all() noexcept {
  const Word word{Fate::kAborted, link_->place().rank};
  poison_all(word);
  tell_all(word);
}

}  // namespace atelier::comm
