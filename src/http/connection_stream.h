// A connection's bytes, with TLS or without: one type, so that what is built on it is compiled once.
#pragma once
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/stream_traits.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/websocket/teardown.hpp>
#include <memory>
#include <utility>

#include "http/session.h"

namespace atelier::http {

namespace beast = boost::beast;

// Models Asio's AsyncStream.
class ConnectionStream {
 public:
  using next_layer_type = beast::tcp_stream;
  using executor_type = next_layer_type::executor_type;
  using Tls = asio::ssl::stream<beast::tcp_stream&>;

  ConnectionStream(asio::ip::tcp::socket socket, asio::ssl::context* tls)
      : plain_(std::make_unique<beast::tcp_stream>(std::move(socket))),
        tls_(tls ? std::make_unique<Tls>(*plain_, *tls) : nullptr) {}

  executor_type get_executor() { return plain_->get_executor(); }
  next_layer_type& next_layer() { return *plain_; }
  const next_layer_type& next_layer() const { return *plain_; }
  Tls* tls() const { return tls_.get(); }  // null: none

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (tls_) return tls_->async_read_some(buffers, std::forward<Token>(token));
    return plain_->async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    if (tls_) return tls_->async_write_some(buffers, std::forward<Token>(token));
    return plain_->async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  std::unique_ptr<beast::tcp_stream> plain_;  // stays where it is when this moves
  std::unique_ptr<Tls> tls_;
};

// What WebSockets ask for, found by the stream's namespace.
inline void beast_close_socket(ConnectionStream& stream) {
  beast::close_socket(stream.next_layer());
}
template <class Handler>
void async_teardown(beast::role_type role, ConnectionStream& stream, Handler&& handler) {
  beast::websocket::async_teardown(role, stream.next_layer().socket(), std::forward<Handler>(handler));
}

}  // namespace atelier::http
