// An HTTP/1.1 server with TLS and WebSockets. Boost.Beast is behind this header and nowhere else.
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "http/message.h"
#include "http/reply.h"

namespace atelier::http {

struct HttpLimits {
  uint32_t header_bytes = 16u << 10;
  int64_t all_body_bytes = 192ll << 20;  // of requests that are being read or answered, together
  size_t unread_bytes = 32u << 20;       // of a stream whose reader is slow
  size_t message_bytes = 64u << 10;      // of a WebSocket's message
  int connections = 20000;
  int waiting = 4096;  // requests whose handling has not begun
  std::chrono::seconds header{10}, body_chunk{20}, idle{75}, write{30};
};

struct TlsFiles {
  std::filesystem::path certificate, key;  // PEM; the certificate with its chain
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 0;     // 0: any free one
  int threads = 4;  // that handle requests
  HttpLimits limits = {};
  std::optional<TlsFiles> tls = {};
};

// How a request's body is to be read, decided by its head.
struct BodyPlan {
  int64_t most_bytes = 0;                        // more is answered with 413
  bool is_form = false;                          // multipart/form-data, taken apart while it comes
  bool is_websocket = false;                     // an upgrade is accepted
  std::optional<OutgoingResponse> refusal = {};  // answered instead
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // On the thread that reads, so never for long. What it throws is answered with 500.
  virtual BodyPlan plan(const IncomingRequest& head) = 0;
  // On one of the handling threads.
  virtual void handle(IncomingRequest request, HttpReply reply) = 0;
  virtual void open(IncomingRequest request, WebSocket socket) = 0;
  // An answer that the server gives by itself.
  virtual OutgoingResponse own_answer(int status, const std::string& message) = 0;
};

class HttpServer {
 public:
  // Binds and listens. Throws Error(kUsage) for an address that cannot be bound or TLS files that cannot be
  // used, with the reason.
  HttpServer(HttpOptions options, HttpHandler& handler);
  ~HttpServer();  // closes all connections
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  int connections() const;
  // Takes no further connections; those that there are are closed once their answer is complete.
  void drain();
  bool is_drained() const;  // and no connection is left

 private:
  struct RunningServer;
  std::unique_ptr<RunningServer> parts_;
};

}  // namespace atelier::http
