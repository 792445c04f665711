// Whether a client leaves while it waits for its answer.
#pragma once
#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <utility>

#include "http/reply_state.h"
#include "http/session.h"

namespace atelier::http {

// On the thread that reads and writes. A client that has sent something first, its next request or the end of
// TLS, is looked at now and then: its socket stays readable, which says no more of it.
class LeaveWatch {
 public:
  explicit LeaveWatch(asio::ip::tcp::socket& socket) : socket_(socket), timer_(socket.get_executor()) {}

  // owner: of this and of the socket, which it keeps while it watches. has_sent: more than the
  // request was read.
  void begin(const std::shared_ptr<void>& owner, const std::shared_ptr<ReplyState>& state, bool has_sent) {
    state_ = state;
    if (is_watching_) return;
    is_watching_ = true;
    if (has_sent) return look_again(owner);
    socket_.async_wait(
        asio::ip::tcp::socket::wait_read, [this, owner](const boost::system::error_code& error) {
          char byte = 0;
          const auto got = error ? -1 : ::recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
          const bool is_gone = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
          if (!error && got > 0) return look_again(owner);
          is_watching_ = false;
          if (!error && is_gone) mark_gone();
        });
  }
  void end() {
    state_.reset();
    if (!is_watching_) return;
    boost::system::error_code ignored;
    socket_.cancel(ignored);
    timer_.cancel();
  }

 private:
  static constexpr std::chrono::milliseconds kLookAgain{250};

  void look_again(const std::shared_ptr<void>& owner) {
    timer_.expires_after(kLookAgain);
    timer_.async_wait([this, owner](const boost::system::error_code& error) {
      pollfd looked{.fd = socket_.native_handle(), .events = POLLRDHUP, .revents = 0};
      const bool is_over = error || state_.expired() || !socket_.is_open();
      const bool is_gone = !is_over && ::poll(&looked, 1, 0) > 0;
      if (!is_over && !is_gone) return look_again(owner);
      is_watching_ = false;
      if (is_gone) mark_gone();
    });
  }

  void mark_gone() {
    if (const auto state = state_.lock()) state->mark_gone();
  }

  asio::ip::tcp::socket& socket_;
  asio::steady_timer timer_;
  std::weak_ptr<ReplyState> state_;  // of what is being answered
  bool is_watching_ = false;
};

}  // namespace atelier::http
