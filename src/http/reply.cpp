#include "http/reply.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "http/reply_state.h"

namespace atelier::http {
namespace {

constexpr size_t kEarlyMessages = 64;  // of a WebSocket whose owner does not listen yet

}  // namespace

struct HttpReply::Holder {
  std::shared_ptr<ReplyState> state;
  ~Holder() { state->abandon(); }
};

HttpReply::HttpReply(std::shared_ptr<ReplyState> state) : holder_(new Holder{std::move(state)}) {}
void HttpReply::send(OutgoingResponse response) const {
  holder_->state->send(std::move(response));
}
void HttpReply::begin(OutgoingResponse head) const {
  holder_->state->begin(std::move(head));
}
bool HttpReply::write(std::string piece) const {
  return holder_->state->write(std::move(piece));
}
void HttpReply::end() const {
  holder_->state->end();
}
void HttpReply::on_gone(std::function<void()> call) const {
  holder_->state->on_gone(std::move(call));
}

bool WebSocket::write(std::string message) const {
  return state_->write(std::move(message));
}
void WebSocket::end() const {
  state_->end();
}
void WebSocket::on_gone(std::function<void()> call) const {
  state_->on_gone(std::move(call));
}
void WebSocket::on_message(const std::function<void(std::string)>& call) const {
  state_->on_message(call);
}

void ReplyState::send(OutgoingResponse response) {
  {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(has_begun_, true)) return;
    waiting_.head = std::move(response);
    waiting_.is_whole = waiting_.is_over = is_closed_ = true;
  }
  wake();
}

void ReplyState::begin(OutgoingResponse head) {
  {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(has_begun_, true)) return;
    if (!head.body.empty()) {
      bytes_ += head.body.size();
      waiting_.pieces.push_back(std::exchange(head.body, {}));
    }
    waiting_.head = std::move(head);
  }
  wake();
}

bool ReplyState::write(std::string piece) {
  bool is_slow = false;
  {
    const std::scoped_lock lock(mutex_);
    if (is_gone_ || is_closed_) return false;
    // one piece may always wait, however large it is
    is_slow = !waiting_.pieces.empty() && bytes_ + piece.size() > most_;
    if (!is_slow) {
      bytes_ += piece.size();
      waiting_.pieces.push_back(std::move(piece));
    }
  }
  if (is_slow) mark_gone();
  wake();
  return !is_slow;
}

void ReplyState::end() {
  {
    const std::scoped_lock lock(mutex_);
    has_begun_ = true;
    waiting_.is_over = is_closed_ = true;
  }
  wake();
}

void ReplyState::abandon() {
  bool has_begun;
  {
    const std::scoped_lock lock(mutex_);
    has_begun = has_begun_;
    if (is_closed_) return;
  }
  if (has_begun) return end();
  send(
      {500, "application/json",
       R"({"error":{"message":"the server gave no answer","type":"server_error","param":null,"code":null}})"});
}

void ReplyState::on_gone(std::function<void()> call) {
  {
    const std::scoped_lock lock(mutex_);
    if (!is_gone_) {
      gone_call_ = std::move(call);
      return;
    }
  }
  call();
}

void ReplyState::on_message(const std::function<void(std::string)>& call) {
  std::deque<std::string> early;
  {
    const std::scoped_lock lock(mutex_);
    if (is_gone_) return;  // it would hold what holds it
    message_call_ = call;
    early = std::exchange(early_messages_, {});
  }
  for (auto& message : early) call(std::move(message));
}

std::optional<ReplyState::Output> ReplyState::take() {
  const std::scoped_lock lock(mutex_);
  if (!waiting_.head && waiting_.pieces.empty() && !waiting_.is_over) return std::nullopt;
  bytes_ = 0;
  Output out = std::move(waiting_);
  waiting_ = {};
  waiting_.is_over = out.is_over;
  return out;
}

bool ReplyState::is_gone() const {
  const std::scoped_lock lock(mutex_);
  return is_gone_;
}

void ReplyState::mark_gone() {
  std::function<void()> call;
  {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(is_gone_, true)) return;
    call = std::exchange(gone_call_, nullptr);
    message_call_ = nullptr;
  }
  try {
    if (call) call();
  } catch (const std::exception& e) {  // of whoever answers; the thread that reads and writes goes on
    log::error(str("a client that has left could not be told of: ", e.what()));
  }
  wake();
}

void ReplyState::deliver(std::string message) {
  std::function<void(std::string)> call;
  {
    const std::scoped_lock lock(mutex_);
    call = message_call_;
    if (!call) {
      if (early_messages_.size() < kEarlyMessages) early_messages_.push_back(std::move(message));
      return;
    }
  }
  try {
    call(std::move(message));
  } catch (const std::exception& e) {
    log::error(str("a message of a WebSocket could not be answered: ", e.what()));
    mark_gone();
  }
}

void ReplyState::wake() {
  const std::scoped_lock lock(wake_mutex_);
  if (wake_) wake_();
}

void ReplyState::detach() {
  const std::scoped_lock lock(wake_mutex_);
  wake_ = nullptr;
}

}  // namespace atelier::http
