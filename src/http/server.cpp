// Who listens, and the one thread that reads and writes.
#include "http/server.h"

#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "http/session.h"

namespace atelier::http {
namespace {

using asio::ip::tcp;

// Every connection is a descriptor.
void raise_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

tcp::endpoint endpoint_of(asio::io_context& io, const HttpOptions& options) {
  boost::system::error_code error;
  const auto port = static_cast<unsigned short>(options.port);
  const auto address = asio::ip::make_address(options.host, error);
  if (!error) return {address, port};
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(options.host, std::to_string(options.port), error);
  if (error || found.empty())
    throw Error(Kind::kUsage, str("the host ", options.host, " is not known here: ", error.message()));
  return found.begin()->endpoint();
}

tcp::acceptor listen(asio::io_context& io, const HttpOptions& options) {
  const auto endpoint = endpoint_of(io, options);
  tcp::acceptor acceptor(io);
  boost::system::error_code error;
  const auto check = [&] {
    if (!error) return;
    throw Error(Kind::kUsage, str("cannot listen on ", options.host, " port ", options.port, ": ",
                                  error.message(), "; choose another one with --port or --host"));
  };
  acceptor.open(endpoint.protocol(), error);
  check();
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  acceptor.bind(endpoint, error);
  check();
  acceptor.listen(4096, error);
  check();
  return acceptor;
}

std::unique_ptr<asio::ssl::context> tls_of(const std::optional<TlsFiles>& files) {
  if (!files) return nullptr;
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  boost::system::error_code error;
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                   asio::ssl::context::no_tlsv1_1);
  tls->use_certificate_chain_file(files->certificate.string(), error);
  if (error)
    throw Error(Kind::kUsage,
                str("tls_cert ", files->certificate.string(), " cannot be used: ", error.message()));
  tls->use_private_key_file(files->key.string(), asio::ssl::context::pem, error);
  if (error)
    throw Error(Kind::kUsage, str("tls_key ", files->key.string(), " cannot be used: ", error.message()));
  return tls;
}

}  // namespace

struct HttpServer::RunningServer {
  RunningServer(HttpOptions given, HttpHandler& handler)
      : options(std::move(given)),
        pool(handler, options.limits),
        tls(tls_of(options.tls)),
        acceptor(listen(io, options)),
        port(acceptor.local_endpoint().port()) {
    pool.start(options.threads);
    asio::co_spawn(io, accept(), asio::detached);
    thread = std::thread([this] { run(); });
  }

  ~RunningServer() {
    asio::post(io, [this] {
      boost::system::error_code ignored;
      acceptor.close(ignored);
      pool.close_all();
    });
    // sessions end as their operations fail; what is left of them goes with the context
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (pool.connections() > 0 && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    io.stop();
    thread.join();
    pool.detach_all();
    pool.stop();
  }

  // What one handler throws ends no other connection.
  void run() {
    for (;;) {
      try {
        io.run();
        return;
      } catch (const std::exception& e) {
        log::error(str("a connection failed: ", e.what()));
      }
    }
  }

  asio::awaitable<void> accept() {
    for (;;) {
      boost::system::error_code error;
      tcp::socket socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (!acceptor.is_open()) co_return;
      if (error) {
        log::warning(str("a connection could not be taken: ", error.message()));
        asio::steady_timer pause(io, std::chrono::milliseconds(100));
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      if (pool.connections() >= options.limits.connections) continue;  // closed at once
      socket.set_option(tcp::no_delay(true), error);
      run_session(std::move(socket), tls.get(), pool);
    }
  }

  const HttpOptions options;
  ConnectionPool pool;  // outlives the connections that the context still holds at its end
  asio::io_context io{1};
  std::unique_ptr<asio::ssl::context> tls;
  tcp::acceptor acceptor;
  const int port;
  std::thread thread;
};

HttpServer::HttpServer(HttpOptions options, HttpHandler& handler) {
  raise_descriptors();
  parts_ = std::make_unique<RunningServer>(std::move(options), handler);
}

HttpServer::~HttpServer() = default;

int HttpServer::port() const {
  return parts_->port;
}

int HttpServer::connections() const {
  return parts_->pool.connections();
}

void HttpServer::drain() {
  asio::post(parts_->io, [parts = parts_.get()] {
    boost::system::error_code ignored;
    parts->acceptor.close(ignored);
    parts->pool.drain();
  });
}

bool HttpServer::is_drained() const {
  return parts_->pool.is_draining() && parts_->pool.connections() == 0;
}

}  // namespace atelier::http
