// One connection: its requests one after the other, with their answers. Coroutines take what has a destructor
// by reference: GCC 12 destroys some temporaries of a co_await twice (PR 104031).
#include "http/session.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include "base/error.h"
#include "http/connection_stream.h"
#include "http/leave_watch.h"
#include "http/reply_state.h"

namespace atelier::http {
namespace {

namespace bhttp = boost::beast::http;

auto then(beast::error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(ConnectionStream stream, ConnectionPool& pool)
      : stream_(std::move(stream)), pool_(pool), timer_(stream_.get_executor()), watch_(lowest().socket()) {
    pool_.join(this, {[this] { close(); }, [this] { close_if_idle(); }, [this] { detach(); }});
  }
  ~Session() { pool_.leave(this); }

  asio::awaitable<void> run() {
    beast::error_code error;
    if (stream_.tls()) {
      lowest().expires_after(limits().header);
      co_await stream_.tls()->async_handshake(asio::ssl::stream_base::server, then(error));
      if (error) co_return;
    }
    while (co_await exchange()) {
    }
    if (stream_.tls()) {
      lowest().expires_after(std::chrono::seconds(2));
      co_await stream_.tls()->async_shutdown(then(error));
    }
    lowest().socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
    if (has_unread_) co_await linger();
  }

 private:
  using Parser = bhttp::request_parser<bhttp::buffer_body>;
  using Socket = beast::websocket::stream<ConnectionStream&>;
  static constexpr size_t kChunk = 16 << 10;

  const HttpLimits& limits() const { return pool_.limits(); }
  beast::tcp_stream& lowest() { return stream_.next_layer(); }

  void close() {
    is_closed_ = true;
    lowest().close();
    timer_.cancel();
  }
  void close_if_idle() {
    if (is_idle_) lowest().close();
  }
  void detach() {
    if (const auto state = state_.lock()) state->detach();
  }

  // A client that still sends what was refused would lose the answer if the connection were closed at once.
  asio::awaitable<void> linger() {
    constexpr size_t kMost = 256 << 20;
    std::string chunk(kChunk, '\0');
    lowest().expires_after(std::chrono::seconds(3));
    for (size_t bytes = 0; bytes < kMost;) {
      beast::error_code error;
      bytes += co_await stream_.async_read_some(asio::buffer(chunk), then(error));
      if (error) co_return;
    }
  }

  // One request and its answer; true: another one may follow.
  asio::awaitable<bool> exchange() {
    beast::error_code error;
    if (buffer_.size() == 0) {
      is_idle_ = true;
      if (pool_.is_draining()) co_return false;
      lowest().expires_after(limits().idle);
      const size_t bytes = co_await stream_.async_read_some(buffer_.prepare(2048), then(error));
      is_idle_ = false;
      if (error) co_return false;
      buffer_.commit(bytes);
    }
    Parser parser;
    parser.header_limit(limits().header_bytes);
    parser.body_limit(boost::none);
    lowest().expires_after(limits().header);
    co_await bhttp::async_read_header(stream_, buffer_, parser, then(error));
    if (error) {
      co_await refuse_head(error);
      co_return false;
    }
    IncomingRequest request = take_head(parser.get());
    BodyPlan plan = pool_.plan(request);
    const bool is_upgrade = beast::websocket::is_upgrade(parser.get());
    if (!plan.refusal && is_upgrade != plan.is_websocket)
      plan.refusal = pool_.error(
          400, is_upgrade ? "this path opens no WebSocket" : "this path is a WebSocket: ask for an upgrade");
    if (plan.refusal) {
      if (has_body(parser)) keeps_ = false, has_unread_ = true;
      co_await write_whole(*plan.refusal);
      co_return keeps_;
    }
    if (plan.is_websocket) {
      auto upgrade = parser.release();
      co_await run_socket(request, upgrade);
      co_return false;
    }
    BodyBudget budget(pool_);
    auto refusal = co_await read_body(parser, plan, request, budget);
    if (refusal) {
      keeps_ = false, has_unread_ = refusal->status != 0;
      if (refusal->status != 0) co_await write_whole(*refusal);
      co_return false;
    }
    co_return co_await answer(request);
  }

  static bool has_body(const Parser& parser) {
    return parser.chunked() || parser.content_length().value_or(0) > 0;
  }

  IncomingRequest take_head(const Parser::value_type& head) {
    is_http_1_0_ = head.version() < 11;
    is_head_ = head.method() == bhttp::verb::head;
    keeps_ = head.keep_alive();
    IncomingRequest request;
    request.method = std::string(head.method_string());
    for (const auto& line : head) request.headers.emplace_back(line.name_string(), line.value());
    set_target(request, std::string(head.target()));
    beast::error_code error;
    const auto peer = lowest().socket().remote_endpoint(error);
    if (!error) request.peer = peer.address().to_string();
    request.is_secure = stream_.tls() != nullptr;
    return request;
  }

  // The other side sent what is no HTTP, rather than left.
  static bool is_malformed(beast::error_code error) {
    return error != bhttp::error::end_of_stream && error != bhttp::error::partial_message &&
           error != beast::error::timeout &&
           error.category() == bhttp::make_error_code(bhttp::error::bad_method).category();
  }

  asio::awaitable<void> refuse_head(beast::error_code error) {
    keeps_ = false;
    if (!is_malformed(error)) co_return;
    const bool is_long = error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow;
    const auto refusal =
        is_long ? pool_.error(431, str("the headers are longer than ", limits().header_bytes, " bytes"))
                : pool_.error(400, "this is no HTTP/1.1 request");
    co_await write_whole(refusal);
  }

  // None when the body is there; status 0: the connection is over.
  asio::awaitable<std::optional<OutgoingResponse>> read_body(Parser& parser, const BodyPlan& plan,
                                                             IncomingRequest& request, BodyBudget& budget) {
    beast::error_code error;
    const auto too_long = [&] {
      return pool_.error(413, str("the body is longer than ", plan.most_bytes, " bytes"));
    };
    if (parser.content_length() && *parser.content_length() > static_cast<uint64_t>(plan.most_bytes))
      co_return too_long();
    std::optional<BodyReader> reader;
    if (auto refusal = pool_.make_reader(request, plan, reader)) co_return refusal;
    if (parser.get().count(bhttp::field::expect) > 0 && has_body(parser)) {
      static const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(stream_, asio::buffer(go_on), then(error));
    }
    std::string chunk;
    if (!parser.is_done()) chunk.resize(kChunk);
    int64_t bytes = 0;
    while (!parser.is_done()) {
      parser.get().body().data = chunk.data();
      parser.get().body().size = chunk.size();
      lowest().expires_after(limits().body_chunk);
      co_await bhttp::async_read(stream_, buffer_, parser, then(error));
      if (error == bhttp::error::need_buffer) error = {};
      if (is_malformed(error)) co_return pool_.error(400, "the body's chunks cannot be read");
      if (error) co_return OutgoingResponse{.status = 0};
      const size_t got = chunk.size() - parser.get().body().size;
      bytes += static_cast<int64_t>(got);
      if (bytes > plan.most_bytes) co_return too_long();
      if (!budget.add(static_cast<int64_t>(got)))
        co_return pool_.error(503, "too many large requests at once: try again later");
      if (auto refusal = pool_.feed(*reader, std::string_view(chunk.data(), got))) co_return refusal;
    }
    co_return pool_.finish(*reader, request);
  }

  std::shared_ptr<ReplyState> make_state() {
    // whoever answers may still hold the state when this connection is gone
    const std::weak_ptr<Session> weak = weak_from_this();
    const auto state = std::make_shared<ReplyState>(limits().unread_bytes, [weak] {
      auto self = weak.lock();
      if (!self) return;
      // it ends on the thread that reads and writes, so what is posted owns it alone
      const auto executor = self->stream_.get_executor();
      asio::post(executor, [self = std::move(self)] { self->timer_.cancel(); });
    });
    state_ = state;
    return state;
  }

  // Until whoever answers has something, or the client has left.
  asio::awaitable<std::optional<ReplyState::Output>> wait_for(const std::shared_ptr<ReplyState>& state) {
    for (;;) {
      auto output = state->take();
      if (output || state->is_gone() || is_closed_) {
        watch_.end();
        co_return output;
      }
      watch_.begin(shared_from_this(), state, buffer_.size() > 0);
      co_await wait_for_change();
    }
  }

  asio::awaitable<void> wait_for_change() {
    beast::error_code ignored;
    timer_.expires_at(std::chrono::steady_clock::time_point::max());
    co_await timer_.async_wait(then(ignored));
  }

  asio::awaitable<bool> answer(IncomingRequest& request) {
    const auto state = make_state();
    if (!pool_.handle(std::move(request), HttpReply(state))) {
      keeps_ = false;
      const auto refusal = pool_.error(503, "too many requests at once: try again later");
      co_await write_whole(refusal);
      co_return false;
    }
    bool is_stream = false;
    for (;;) {
      auto output = co_await wait_for(state);
      if (output && output->head && output->is_whole) co_return co_await write_whole(*output->head);
      is_stream = is_stream || (output && output->head);
      const bool is_written = output && co_await write_parts(*output);
      if (!is_written) {
        state->mark_gone();
        co_return false;
      }
      if (!output->is_over) continue;
      if (is_stream && !is_http_1_0_ && !is_head_) {
        static const std::string last = "0\r\n\r\n";
        if (!co_await write_bytes(last)) co_return false;
      }
      co_return keeps_;
    }
  }

  asio::awaitable<bool> write_parts(ReplyState::Output& output) {
    if (output.head) {
      keeps_ = keeps_ && !is_http_1_0_;
      auto head = head_of(*output.head);
      head.chunked(!is_http_1_0_);
      if (!co_await write_head(head)) co_return false;
    }
    for (auto& piece : output.pieces) {
      if (!co_await write_piece(piece)) co_return false;
    }
    co_return true;
  }

  bhttp::response<bhttp::empty_body> head_of(const OutgoingResponse& response) {
    bhttp::response<bhttp::empty_body> head;
    head.version(11);
    head.result(static_cast<unsigned>(response.status));
    head.reason(std::string(reason_phrase(response.status)));
    if (!response.content_type.empty()) head.set(bhttp::field::content_type, response.content_type);
    for (const auto& [name, value] : response.headers) head.insert(name, value);
    keeps_ = keeps_ && !pool_.is_draining();
    head.keep_alive(keeps_);
    return head;
  }

  asio::awaitable<bool> write_whole(const OutgoingResponse& response) {
    auto head = head_of(response);
    if (response.status != 204 && response.status != 304) head.content_length(response.body.size());
    if (!co_await write_head(head)) co_return false;
    if (!is_head_ && !co_await write_bytes(response.body)) co_return false;
    co_return keeps_;
  }

  asio::awaitable<bool> write_head(bhttp::response<bhttp::empty_body>& head) {
    beast::error_code error;
    lowest().expires_after(limits().write);
    bhttp::response_serializer<bhttp::empty_body> serializer(head);
    co_await bhttp::async_write_header(stream_, serializer, then(error));
    co_return !error;
  }

  asio::awaitable<bool> write_piece(std::string& piece) {
    if (piece.empty() || is_head_) co_return true;
    if (is_http_1_0_) co_return co_await write_bytes(piece);
    std::array<char, 24> size{};
    std::snprintf(size.data(), size.size(), "%zx\r\n", piece.size());
    piece = str(size.data(), piece, "\r\n");
    co_return co_await write_bytes(piece);
  }

  // In parts, each with its own time: a large answer may take long, as long as it moves.
  asio::awaitable<bool> write_bytes(const std::string& bytes) {
    constexpr size_t kPart = 256 << 10;
    beast::error_code error;
    for (size_t at = 0; at < bytes.size() && !error; at += kPart) {
      lowest().expires_after(limits().write);
      co_await asio::async_write(stream_, asio::buffer(bytes.data() + at, std::min(kPart, bytes.size() - at)),
                                 then(error));
    }
    co_return !error;
  }

  asio::awaitable<void> run_socket(IncomingRequest& request, const Parser::value_type& upgrade) {
    const auto socket = std::make_shared<Socket>(stream_);
    lowest().expires_never();
    socket->set_option(beast::websocket::stream_base::timeout::suggested(beast::role_type::server));
    socket->read_message_max(limits().message_bytes);
    socket->text(true);
    beast::error_code error;
    co_await socket->async_accept(upgrade, then(error));
    if (error) co_return;
    const auto state = make_state();
    pool_.open(std::move(request), WebSocket(state));
    asio::co_spawn(
        stream_.get_executor(),
        [self = shared_from_this(), socket, state] { return self->read_socket(socket, state); },
        asio::detached);
    for (;;) {
      auto output = state->take();
      if (!output && (state->is_gone() || is_closed_)) break;
      if (!output) {
        co_await wait_for_change();
        continue;
      }
      for (auto& piece : output->pieces) {
        co_await socket->async_write(asio::buffer(piece), then(error));
        if (error) break;
      }
      if (error || output->is_over) break;
    }
    state->mark_gone();
    error = {};
    co_await socket->async_close(beast::websocket::close_code::normal, then(error));
  }

  asio::awaitable<void> read_socket(std::shared_ptr<Socket> socket, std::shared_ptr<ReplyState> state) {
    beast::flat_buffer buffer;
    for (;;) {
      beast::error_code error;
      co_await socket->async_read(buffer, then(error));
      if (error) break;
      const auto handled = std::make_shared<asio::steady_timer>(stream_.get_executor(),
                                                                std::chrono::steady_clock::time_point::max());
      const auto done = [handled] { asio::post(handled->get_executor(), [handled] { handled->cancel(); }); };
      if (!pool_.deliver(state, beast::buffers_to_string(buffer.data()), done)) break;
      buffer.clear();
      co_await handled->async_wait(then(error));
    }
    state->mark_gone();
  }

  ConnectionStream stream_;
  ConnectionPool& pool_;
  asio::steady_timer timer_;
  LeaveWatch watch_;
  std::weak_ptr<ReplyState> state_;  // of what is being answered
  beast::flat_buffer buffer_;
  bool is_http_1_0_ = false, is_head_ = false, keeps_ = false, is_idle_ = false;
  bool is_closed_ = false, has_unread_ = false;
};

}  // namespace

void run_session(asio::ip::tcp::socket socket, asio::ssl::context* tls, ConnectionPool& pool) {
  const auto executor = socket.get_executor();
  const auto session = std::make_shared<Session>(ConnectionStream(std::move(socket), tls), pool);
  asio::co_spawn(
      executor, [session] { return session->run(); }, [](const std::exception_ptr&) {});
}

}  // namespace atelier::http
