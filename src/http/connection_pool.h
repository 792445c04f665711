// What the connections of one server share: their handler, its threads, their limits. No sockets here.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "http/form.h"
#include "http/server.h"

namespace atelier::http {

// A body that is being read.
struct BodyReader {
  std::optional<FormReader> form;
  std::string whole;
};

class ConnectionPool {
 public:
  ConnectionPool(HttpHandler& handler, HttpLimits limits) : handler_(handler), limits_(limits) {}
  void start(int threads);
  ~ConnectionPool() { stop(); }  // no connection may be left
  void stop();                   // waits for what is being handled, and drops what is not begun

  const HttpLimits& limits() const { return limits_; }

  // The thread that reads and writes.
  BodyPlan plan(const IncomingRequest& head);
  OutgoingResponse error(int status, const std::string& message) const;
  // These give what to answer instead of going on, or nothing.
  std::optional<OutgoingResponse> make_reader(const IncomingRequest& head, const BodyPlan& plan,
                                              std::optional<BodyReader>& reader) const;
  std::optional<OutgoingResponse> feed(BodyReader& reader, std::string_view bytes) const;
  std::optional<OutgoingResponse> finish(BodyReader& reader, IncomingRequest& request) const;
  // False: too much waits.
  bool handle(IncomingRequest request, HttpReply reply);
  void open(IncomingRequest request, WebSocket socket);
  // A message of a WebSocket, to whoever answers; done: called afterwards, on the thread that handled it.
  // False: the server ends.
  bool deliver(const std::shared_ptr<ReplyState>& socket, std::string message, std::function<void()> done);

  struct Closers {
    std::function<void()> close, close_if_idle, detach;
  };
  void join(const void* session, Closers closers);
  void leave(const void* session);
  int connections() const { return connections_; }
  void drain();  // closes those that wait for a request
  void close_all();
  void detach_all();  // those that are left: nobody posts to their thread any more
  bool is_draining() const { return is_draining_; }

 private:
  friend class BodyBudget;
  bool post(std::function<void()> work, bool is_bounded);
  void work();

  HttpHandler& handler_;
  const HttpLimits limits_;
  std::atomic<int64_t> body_bytes_ = 0;
  std::atomic<int> connections_ = 0;
  std::atomic<bool> is_draining_ = false;
  std::map<const void*, Closers> sessions_;  // of the thread that reads and writes

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  bool is_over_ = false;
  std::vector<std::thread> threads_;
};

// The bytes of one request's body, out of those that all may have together.
class BodyBudget {
 public:
  explicit BodyBudget(ConnectionPool& pool) : pool_(pool) {}
  ~BodyBudget() { pool_.body_bytes_ -= bytes_; }
  BodyBudget(const BodyBudget&) = delete;
  BodyBudget& operator=(const BodyBudget&) = delete;
  bool add(int64_t bytes);

 private:
  ConnectionPool& pool_;
  int64_t bytes_ = 0;
};

}  // namespace atelier::http
