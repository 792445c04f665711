#include "http/connection_pool.h"

#include <exception>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "http/reply_state.h"

namespace atelier::http {

void ConnectionPool::start(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

void ConnectionPool::stop() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

BodyPlan ConnectionPool::plan(const IncomingRequest& head) {
  try {
    return handler_.plan(head);
  } catch (const std::exception& e) {
    log::error(str("a request's head could not be judged: ", e.what()));
    return {.refusal = error(500, "the server failed")};
  }
}

OutgoingResponse ConnectionPool::error(int status, const std::string& message) const {
  OutgoingResponse out = handler_.own_answer(status, message);
  if (status == 503) out.headers.emplace_back("Retry-After", "1");
  return out;
}

std::optional<OutgoingResponse> ConnectionPool::make_reader(const IncomingRequest& head, const BodyPlan& plan,
                                                            std::optional<BodyReader>& reader) const {
  reader.emplace();
  if (!plan.is_form) return std::nullopt;
  const auto boundary = form_boundary(head.header("content-type").value_or(""));
  if (!boundary) return error(400, "the multipart form names no usable boundary");
  reader->form.emplace(*boundary, FormLimits{.file_bytes = static_cast<size_t>(plan.most_bytes)});
  return std::nullopt;
}

std::optional<OutgoingResponse> ConnectionPool::feed(BodyReader& reader, std::string_view bytes) const {
  try {
    if (reader.form) {
      reader.form->add(bytes);
    } else {
      reader.whole.append(bytes);
    }
    return std::nullopt;
  } catch (const Error& e) {
    return error(400, e.what());
  }
}

std::optional<OutgoingResponse> ConnectionPool::finish(BodyReader& reader, IncomingRequest& request) const {
  try {
    if (reader.form) request.form = reader.form->finish();
    request.body = std::move(reader.whole);
    return std::nullopt;
  } catch (const Error& e) {
    return error(400, e.what());
  }
}

bool ConnectionPool::handle(IncomingRequest request, HttpReply reply) {
  // shared: std::function copies what it holds
  const auto held = std::make_shared<IncomingRequest>(std::move(request));
  return post([this, held, reply = std::move(reply)] { handler_.handle(std::move(*held), reply); }, true);
}

void ConnectionPool::open(IncomingRequest request, WebSocket socket) {
  const auto held = std::make_shared<IncomingRequest>(std::move(request));
  post([this, held, socket = std::move(socket)] { handler_.open(std::move(*held), socket); }, false);
}

bool ConnectionPool::deliver(const std::shared_ptr<ReplyState>& socket, std::string message,
                             std::function<void()> done) {
  return post(
      [socket, message = std::move(message), done = std::move(done)] {
        socket->deliver(message);
        done();
      },
      false);
}

bool ConnectionPool::post(std::function<void()> work, bool is_bounded) {
  {
    const std::scoped_lock lock(mutex_);
    if (is_over_ || (is_bounded && std::ssize(waiting_) >= limits_.waiting)) return false;
    waiting_.push_back(std::move(work));
  }
  changed_.notify_one();
  return true;
}

void ConnectionPool::work() {
  for (;;) {
    std::function<void()> next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_over_ || !waiting_.empty(); });
      if (is_over_) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    try {
      next();
    } catch (const std::exception& e) {
      log::error(str("a request could not be answered: ", e.what()));  // its reply answers 500 by itself
    }
  }
}

void ConnectionPool::join(const void* session, Closers closers) {
  sessions_[session] = std::move(closers);
  ++connections_;
}

void ConnectionPool::leave(const void* session) {
  sessions_.erase(session);
  --connections_;
}

void ConnectionPool::drain() {
  is_draining_ = true;
  for (const auto& [session, closers] : sessions_) closers.close_if_idle();
}

void ConnectionPool::close_all() {
  for (const auto& [session, closers] : sessions_) closers.close();
}

void ConnectionPool::detach_all() {
  for (const auto& [session, closers] : sessions_) closers.detach();
}

bool BodyBudget::add(int64_t bytes) {
  bytes_ += bytes;
  return (pool_.body_bytes_ += bytes) <= pool_.limits().all_body_bytes;
}

}  // namespace atelier::http
