// The server over real sockets: what HTTP asks of it, and clients that are slow, rude or gone.
#include "http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <thread>

#include "base/error.h"

namespace atelier::http {
namespace {

using namespace std::chrono_literals;

class Client {
 public:
  explicit Client(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval limit{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { close(); }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void send(const std::string& text) const {
    size_t at = 0;
    while (at < text.size()) {
      const auto sent = ::send(fd_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) return;
      at += static_cast<size_t>(sent);
    }
  }
  // Until this is there, or the other side has ended.
  std::string read_until(const std::string& end) {
    char bytes[4096];
    while (got_.find(end) == std::string::npos) {
      const auto count = ::recv(fd_, bytes, sizeof bytes, 0);
      if (count <= 0) return std::exchange(got_, {});
      got_.append(bytes, static_cast<size_t>(count));
    }
    const size_t at = got_.find(end) + end.size();
    const std::string out = got_.substr(0, at);
    got_.erase(0, at);
    return out;
  }
  std::string read_all() { return read_until("no answer holds this"); }

 private:
  int fd_;
  std::string got_;
};

// Answers by path.
class Echo : public HttpHandler {
 public:
  std::atomic<int> gone = 0, handled = 0;
  std::promise<HttpReply> held;
  std::promise<void> go_on;

  BodyPlan plan(const IncomingRequest& head) override {
    if (head.path == "/refused") return {.refusal = OutgoingResponse{.status = 403, .body = "no"}};
    return {.most_bytes = 1000,
            .is_form = head.header("content-type").value_or("").starts_with("multipart/"),
            .is_websocket = head.path == "/socket"};
  }
  void handle(IncomingRequest request, HttpReply reply) override {
    ++handled;
    if (request.path == "/held") {
      reply.on_gone([this] { ++gone; });
      return held.set_value(reply);
    }
    if (request.path == "/forgotten") return;
    if (request.path == "/throws") throw Error(Kind::kUsage, "on purpose");
    if (request.path == "/stream") {
      reply.begin({.content_type = "text/plain"});
      for (const char* piece : {"one", "two"}) reply.write(piece);
      return reply.end();
    }
    if (request.path == "/large") return reply.send({.body = std::string(20 << 20, 'x')});
    std::string form;
    for (const auto& part : request.form) form += part.name + "=" + part.data + ";";
    reply.send(
        {.content_type = "text/plain",
         .body = request.method + " " + request.path + "?" + request.query + " " + request.body + form});
  }
  void open(IncomingRequest, WebSocket socket) override {
    socket.on_message([this, socket](const std::string& text) {
      if (text == "slow!") go_on.get_future().wait();
      socket.write("echo " + text);
    });
  }
  OutgoingResponse own_answer(int status, const std::string& message) override {
    return {.status = status, .body = str(status, ": ", message)};
  }
};

struct Running {
  Echo echo;
  HttpServer server;
  explicit Running(HttpLimits limits = {}) : server({.limits = limits}, echo) {}
  std::string ask(const std::string& text) {
    Client client(server.port());
    client.send(text);
    return client.read_all();
  }
};

constexpr const char* kClose = "Host: a\r\nConnection: close\r\n\r\n";

TEST(HttpServer_AnswersARequest, AndKeepsTheConnection) {
  Running r;
  Client client(r.server.port());
  for (int i = 0; i < 3; ++i) {
    client.send(str("POST /a", i, "?b=", i, " HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
    const auto head = client.read_until("\r\n\r\n");
    EXPECT_TRUE(head.starts_with("HTTP/1.1 200 OK")) << head;
    EXPECT_NE(client.read_until("hello").find(str("POST /a", i, "?b=", i)), std::string::npos);
  }
  EXPECT_EQ(r.server.connections(), 1);
}

TEST(HttpServer_PipelinedRequests, AreAnsweredInOrder) {
  Running r;
  const auto all = r.ask(
      str("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\n", kClose));
  const auto one = all.find("GET /1"), two = all.find("GET /2"), three = all.find("GET /3");
  EXPECT_LT(one, two);
  EXPECT_LT(two, three);
  EXPECT_NE(three, std::string::npos) << all;
}

TEST(HttpServer_ChunksThatAreNone, AreSaidToBe) {
  Running r;
  for (const char* chunk : {"zz\r\n", "5\r\nhelloXX\r\n0\r\n\r\n"})
    EXPECT_NE(r.ask(str("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", kClose, chunk)).find(" 400 "),
              std::string::npos)
        << chunk;
}

TEST(HttpServer_ATargetWithAHost, IsAPathOfThatHost) {
  Running r;
  for (const auto& [target, answer] : {std::pair{"http://a/b?c=1", "GET /b?c=1 "},
                                       {"HTTP://a:80/b/c", "GET /b/c? "},
                                       {"https://a", "GET /? "},
                                       {"http://a?c=1", "GET /?c=1 "},
                                       {"//a/b", "GET //a/b? "}})
    EXPECT_NE(r.ask(str("GET ", target, " HTTP/1.1\r\n", kClose)).find(answer), std::string::npos) << target;
  IncomingRequest request;
  request.headers = {{"host", "localhost"}};
  set_target(request, "http://evil.example/");
  EXPECT_EQ(request.header("Host"), "evil.example");
}

TEST(HttpServer_ChunkedBodies, AreReadWithinTheLimit) {
  Running r;
  EXPECT_NE(r.ask(str("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", kClose,
                      "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
                .find("abcde"),
            std::string::npos);
  std::string large = str("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", kClose);
  for (int i = 0; i < 11; ++i) large += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_NE(r.ask(large + "0\r\n\r\n").find("413: the body is longer than 1000 bytes"), std::string::npos);
}

TEST(HttpServer_WhatIsTooLongOrBroken, IsRefused) {
  Running r;
  EXPECT_NE(r.ask(str("POST / HTTP/1.1\r\nContent-Length: 1001\r\n", kClose)).find(" 413 "),
            std::string::npos);
  EXPECT_NE(r.ask(str("GET / HTTP/1.1\r\nX: ", std::string(20000, 'x'), "\r\n", kClose)).find(" 431 "),
            std::string::npos);
  EXPECT_NE(r.ask("GARBAGE\r\n\r\n").find(" 400 "), std::string::npos);
  EXPECT_NE(
      r.ask(str("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", kClose, "abc"))
          .find(" 400 "),
      std::string::npos);
  EXPECT_NE(r.ask(str("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n", kClose, "abc"))
                .find(" 400 "),
            std::string::npos);
  EXPECT_NE(r.ask(str("POST /refused HTTP/1.1\r\nContent-Length: 500\r\n", kClose)).find(" 403 "),
            std::string::npos);
  EXPECT_EQ(r.echo.handled, 0);
}

TEST(HttpServer_AReplyThatIsForgottenOrThrown, Answers500) {
  Running r;
  for (const char* path : {"/forgotten", "/throws"}) {
    const auto answer = r.ask(str("GET ", path, " HTTP/1.1\r\n", kClose));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 500")) << answer;
    EXPECT_EQ(answer.find("on purpose"), std::string::npos);
  }
}

TEST(HttpServer_StreamsComeInChunks, AndPlainTo10) {
  Running r;
  EXPECT_NE(r.ask(str("GET /stream HTTP/1.1\r\n", kClose)).find("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
            std::string::npos);
  const auto old = r.ask("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_NE(old.find("\r\n\r\nonetwo"), std::string::npos) << old;
}

TEST(HttpServer_AClientThatLeaves, IsHeardOf) {
  Running r;
  Client client(r.server.port());
  client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = r.echo.held.get_future().get();
  client.close();
  for (int i = 0; i < 500 && r.echo.gone == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(r.echo.gone, 1);
  EXPECT_FALSE(reply.write("x"));
}

TEST(HttpServer_AClientThatLeavesAfterItsNextRequestsFirstByte, IsHeardOf) {
  Running r;
  Client client(r.server.port());
  client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = r.echo.held.get_future().get();
  client.send("G");
  std::this_thread::sleep_for(600ms);
  EXPECT_EQ(r.echo.gone, 0);
  client.close();
  for (int i = 0; i < 500 && r.echo.gone == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(r.echo.gone, 1);
}

TEST(HttpServer_AClientThatLeavesWithARequestThatItSentTooEarly, IsHeardOf) {
  Running r;
  Client client(r.server.port());
  client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = r.echo.held.get_future().get();
  client.close();
  for (int i = 0; i < 500 && r.echo.gone == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(r.echo.gone, 1);
}

TEST(HttpServer_ALatelyAnsweredRequest, LeavesTheNextOneWatched) {
  Running r;
  Client client(r.server.port());
  client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /");
  auto reply = std::make_optional(r.echo.held.get_future().get());
  std::this_thread::sleep_for(600ms);
  r.echo.held = {};
  reply->send({.body = "there"});
  reply.reset();
  EXPECT_TRUE(client.read_until("there").ends_with("there"));
  client.send("held HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto second = r.echo.held.get_future().get();
  std::this_thread::sleep_for(600ms);
  EXPECT_EQ(r.echo.gone, 0);
  client.close();
  for (int i = 0; i < 500 && r.echo.gone == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(r.echo.gone, 1);
}

TEST(HttpServer_SlowClientsAreCutOff, AndNobodyWaitsForThem) {
  Running r({.header = 1s, .body_chunk = 1s, .idle = 1s, .write = 1s});
  Client head(r.server.port()), body(r.server.port()), idle(r.server.port()), reader(r.server.port());
  head.send("GET / HT");
  body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
  reader.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_NE(r.ask(str("GET /quick HTTP/1.1\r\n", kClose)).find("/quick"), std::string::npos);
  EXPECT_EQ(body.read_all(), "");  // closed: a stream that was too slow takes no answer either
  EXPECT_EQ(idle.read_all(), "");
  head.read_all();
  for (int i = 0; i < 500 && r.server.connections() > 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(r.server.connections(), 0);
}

TEST(HttpServer_Forms, ComeAsParts) {
  Running r;
  const std::string form = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--";
  const auto ask = [&](const std::string& type, const std::string& text) {
    return r.ask(str("POST /f HTTP/1.1\r\nContent-Type: ", type, "\r\nContent-Length: ", text.size(), "\r\n",
                     kClose, text));
  };
  EXPECT_NE(ask("multipart/form-data; boundary=b", form).find("a=1;"), std::string::npos);
  EXPECT_NE(
      ask("multipart/form-data; boundary=b", form.substr(0, 40)).find("400: the multipart form ends before"),
      std::string::npos);
  EXPECT_NE(ask("multipart/form-data", form).find("400: the multipart form names no usable boundary"),
            std::string::npos);
}

TEST(HttpServer_AWebSocket, Echoes) {
  Running r;
  Client client(r.server.port());
  client.send(
      "GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: "
      "Upgrade\r\nSec-WebSocket-Version: 13\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  const auto head = client.read_until("\r\n\r\n");
  EXPECT_TRUE(head.starts_with("HTTP/1.1 101")) << head;
  EXPECT_NE(head.find("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), std::string::npos);  // RFC 6455, 1.3
  // "hello", masked with zeros
  client.send(std::string("\x81\x85\0\0\0\0hello", 11));
  EXPECT_EQ(client.read_until("hello"),
            "\x81\x0a"
            "echo hello");
  EXPECT_NE(r.ask(str("GET /socket HTTP/1.1\r\n", kClose)).find(" 400 "), std::string::npos);
}

TEST(HttpServer_AWebSocketWhoseMessageTakesLong, HoldsUpNoOtherConnection) {
  Running r;
  Client client(r.server.port());
  client.send(
      "GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: "
      "Upgrade\r\nSec-WebSocket-Version: 13\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  client.read_until("\r\n\r\n");
  client.send(std::string("\x81\x85\0\0\0\0slow!\x81\x85\0\0\0\0hello", 22));
  std::this_thread::sleep_for(200ms);
  EXPECT_NE(r.ask(str("GET /quick HTTP/1.1\r\n", kClose)).find("/quick"), std::string::npos);
  r.echo.go_on.set_value();
  EXPECT_TRUE(client.read_until("slow!").ends_with("echo slow!"));  // one after the other
  EXPECT_TRUE(client.read_until("hello").ends_with("echo hello"));
}

TEST(HttpServer_AnEndWhileRequestsAreOpen, LeavesNothing) {
  auto r = std::make_unique<Running>();
  Client client(r->server.port());
  client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto reply = r->echo.held.get_future().get();
  r.reset();
  EXPECT_FALSE(reply.write("x"));
  reply.send({.body = "too late"});
}

TEST(HttpServer_AnAddressInUse, IsNamed) {
  Running r;
  Echo echo;
  try {
    HttpServer second({.port = r.server.port()}, echo);
    ADD_FAILURE() << "two servers have one port";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(str("port ", r.server.port())), std::string::npos);
    EXPECT_EQ(e.kind(), Kind::kUsage);
  }
}

}  // namespace
}  // namespace atelier::http
