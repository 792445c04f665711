// What is to be sent on one connection, between the thread that answers and the one that writes.
#pragma once
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "http/message.h"

namespace atelier::http {

class ReplyState {
 public:
  // most: bytes of a stream that may wait for their reader. wake: called after a change, from any thread.
  ReplyState(size_t most, std::function<void()> wake) : most_(most), wake_(std::move(wake)) {}

  // Whoever answers.
  void send(OutgoingResponse response);
  void begin(OutgoingResponse head);
  bool write(std::string piece);
  void end();
  void abandon();  // nobody answers any more
  void on_gone(std::function<void()> call);
  void on_message(const std::function<void(std::string)>& call);

  // Whoever writes.
  struct Output {
    std::optional<OutgoingResponse> head;
    std::deque<std::string> pieces;
    bool is_whole = false;  // the head's body is all of it
    bool is_over = false;   // nothing follows
  };
  // What waits; none if nothing does.
  std::optional<Output> take();
  bool is_gone() const;
  void mark_gone();  // the client has left
  void deliver(std::string message);
  // The connection is over, and what it ran on, too: nobody is woken any more, also not by a call
  // that has begun.
  void detach();

 private:
  void wake();

  const size_t most_;
  std::mutex wake_mutex_;
  std::function<void()> wake_;
  mutable std::mutex mutex_;
  Output waiting_;
  size_t bytes_ = 0;  // of pieces
  bool has_begun_ = false, is_closed_ = false, is_gone_ = false;
  std::function<void()> gone_call_;
  std::function<void(std::string)> message_call_;
  std::deque<std::string> early_messages_;
};

}  // namespace atelier::http
