// The way back to a client, for whoever answers, from any thread.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "http/message.h"

namespace atelier::http {

// What the connection and whoever answers share; see reply_state.h.
class ReplyState;

// The answer to one request: send(), or begin(), write() as often as needed and end(). A reply that is
// forgotten by all of its holders answers 500.
class HttpReply {
 public:
  explicit HttpReply(std::shared_ptr<ReplyState> state);

  void send(OutgoingResponse response) const;
  // A body that comes in pieces; that of the head is the first.
  void begin(OutgoingResponse head) const;
  // False once nobody reads any more, or too slowly: the connection is closed then.
  bool write(std::string piece) const;
  void end() const;
  // Called once if the client leaves before the answer is complete; at once if it has left already.
  void on_gone(std::function<void()> call) const;

 private:
  struct Holder;
  std::shared_ptr<Holder> holder_;
};

// A WebSocket that was opened. Text messages only.
class WebSocket {
 public:
  explicit WebSocket(std::shared_ptr<ReplyState> state) : state_(std::move(state)) {}

  bool write(std::string message) const;  // as HttpReply::write
  void end() const;
  void on_gone(std::function<void()> call) const;
  // Called for every message of the client, one at a time, on a thread that handles requests.
  void on_message(const std::function<void(std::string)>& call) const;

 private:
  std::shared_ptr<ReplyState> state_;
};

}  // namespace atelier::http
