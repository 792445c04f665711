#include "cluster/tensor_server.h"

#include <sys/types.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/log.h"

namespace atelier::cluster {
namespace {

const char* name_of(std::optional<Kind> kind) {
  if (!kind) return "other";
  switch (*kind) {
    case Kind::kUsage:
      return "usage";
    case Kind::kCheckpoint:
      return "checkpoint";
    case Kind::kCapacity:
      return "capacity";
    case Kind::kPeer:
      return "peer";
    case Kind::kItem:
      return "item";
    case Kind::kInterrupted:
      return "interrupted";
  }
  return "other";
}

Json answer(const char* kind, int64_t id) {
  return {{"is", kind}, {"id", id}};
}

Descriptor memory_of(const std::string& bytes) {
  Descriptor file = memory_file();
  for (size_t done = 0; done < bytes.size();) {
    const auto wrote = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (wrote <= 0) throw Error(Kind::kCapacity, "no memory for the bytes of a picture");
    done += static_cast<size_t>(wrote);
  }
  return file;
}

}  // namespace

TensorServer::TensorServer(Job job, Descriptor socket, MakeRequests make_requests)
    : job_(std::move(job)), socket_(std::move(socket)), make_requests_(std::move(make_requests)) {}

TensorServer::~TensorServer() {
  socket_.shut_down();
  if (listener_.joinable()) listener_.join();
}

void TensorServer::run(const Json& hello, const std::stop_token& stop) {
  const std::stop_callback leave(stop, [this] { end(); });
  socket_.send(hello);
  listener_ = std::thread([this] { listen(); });
  for (;;) {
    std::deque<Packet> packets;
    {
      std::unique_lock lock(mutex_);
      if (!pool_) changed_.wait(lock, [&] { return is_over_ || !arrived_.empty(); });
      if (is_over_) return;
      packets.swap(arrived_);
    }
    for (auto& packet : packets) take(std::move(packet));
    if (pool_) poll();
  }
}

void TensorServer::listen() {
  try {
    while (auto packet = socket_.receive()) {
      const std::scoped_lock lock(mutex_);
      arrived_.push_back(std::move(*packet));
      changed_.notify_all();
      if (awake_) awake_->wake();
    }
  } catch (const std::exception& e) {
    log::error(e.what());
  }
  end();
}

// Any thread.
void TensorServer::end() {
  const std::scoped_lock lock(mutex_);
  is_over_ = true;
  socket_.shut_down();  // for who waits for a client that reads nothing
  changed_.notify_all();
  if (awake_) awake_->wake();
}

void TensorServer::take(Packet packet) {
  int64_t id = 0;
  try {
    id = packet.message.value("id", id);
    const auto what = packet.message.value("do", std::string());
    if (what == "predict" || what == "decode") return call(id, std::move(packet));
    if (what == "draw") return draw(id, packet.message.at("requests"));
    if (what == "load") return load(id);
    if (what == "release") return release(id);
    if (what == "cancel") return cancel(id);
    throw Error(Kind::kUsage, str("nothing is known of \"", what, "\""));
  } catch (const Error& e) {
    send_failure(id, e.kind(), e.what());
  } catch (const Json::exception& e) {
    send_failure(id, Kind::kUsage, str("a message that cannot be understood: ", e.what()));
  }
}

WorkerPool& TensorServer::pool() {
  if (!pool_) {
    is_ready_ = false;
    pool_ = std::make_unique<WorkerPool>(job_, nullptr);
    const std::scoped_lock lock(mutex_);
    awake_ = pool_.get();
  }
  return *pool_;
}

void TensorServer::call(int64_t id, Packet packet) {
  if (packet.descriptors.size() != 1) throw Error(Kind::kUsage, "a call comes with one memory file");
  packet.message["action"] = packet.message.at("do");
  auto work = std::make_shared<OpenWork>(OpenWork{.id = id, .memory = std::move(packet.descriptors.front())});
  auto call = tensor_call_from_json(packet.message);
  call.memory = str("/proc/", ::getpid(), "/fd/", work->memory.get());
  by_batch_[pool().submit(std::move(call))] = std::move(work);
}

void TensorServer::draw(int64_t id, const Json& rows) {
  auto requests = make_requests_(rows);
  if (requests.empty()) return void(socket_.send(answer("done", id)));
  auto work = std::make_shared<OpenWork>(OpenWork{.id = id, .unfinished = static_cast<int>(requests.size())});
  for (auto& request : requests) by_batch_[pool().submit({std::move(request)})] = work;
}

void TensorServer::cancel(int64_t id) {
  for (const auto& [batch, work] : by_batch_) {
    if (work->id == id) pool_->cancel(batch);
  }
}

void TensorServer::load(int64_t id) {
  pool();
  if (is_ready_) {
    socket_.send(answer("done", id));
  } else {
    loads_.push_back(id);
  }
}

void TensorServer::release(int64_t id) {
  fail_all(Kind::kInterrupted, "the memory was given back");
  socket_.send(answer("done", id));
}

// No worker lives when it returns.
void TensorServer::fail_all(std::optional<Kind> kind, const std::string& reason) {
  {
    const std::scoped_lock lock(mutex_);
    awake_ = nullptr;
  }
  pool_.reset();
  std::set<int64_t> ids;
  for (const auto& [batch, work] : std::exchange(by_batch_, {})) {
    if (!work->has_failed) ids.insert(work->id);
  }
  for (const int64_t id : std::exchange(loads_, {})) ids.insert(id);
  for (const int64_t id : ids) send_failure(id, kind, reason);
}

void TensorServer::poll() {
  try {
    for (const auto& event : pool_->poll(std::chrono::seconds(1)))
      std::visit([this](const auto& e) { on(e); }, event);
  } catch (const Error& e) {
    fail_all(e.kind(), e.what());
  }
}

void TensorServer::send_failure(int64_t id, std::optional<Kind> kind, const std::string& reason) {
  if (kind != Kind::kInterrupted) log::error(reason);
  Json message = answer("failed", id);
  message["kind"] = name_of(kind);
  message["reason"] = reason;
  socket_.send(message);
}

// Null once the work's last message has been sent.
TensorServer::OpenWork* TensorServer::find(int64_t batch) {
  const auto at = by_batch_.find(batch);
  return at == by_batch_.end() || at->second->has_failed ? nullptr : at->second.get();
}

void TensorServer::on(const GroupReady&) {
  is_ready_ = true;
  for (const int64_t id : std::exchange(loads_, {})) socket_.send(answer("done", id));
}

void TensorServer::on(const StepDone& e) {
  const auto* const work = find(e.batch);
  if (!work) return;
  Json message = answer("step", work->id);
  message["step"] = e.step, message["steps"] = e.steps;
  socket_.send(message);
}

void TensorServer::on(const RequestNote& e) {
  const auto* const work = find(e.batch);
  if (!work) return;
  Json message = answer("note", work->id);
  message["note"] = e.note;
  socket_.send(message);
}

void TensorServer::on(const ArtifactStored& e) {
  const auto* const work = find(e.batch);
  if (!work) return;
  const auto file = memory_of(e.stored.data);
  Json message = answer("artifact", work->id);
  message["index"] = e.request.index;
  message["name"] = e.request.name;
  message["bytes"] = e.stored.data.size();
  socket_.send(message, file.get());
}

void TensorServer::on(const CallAnswered& e) {
  if (auto* const work = find(e.batch)) work->shape = e.shape;
}

void TensorServer::on(const CallFailed& e) {
  if (auto* const work = find(e.batch)) fail(*work, e.kind, e.reason);
}

void TensorServer::on(const RequestFailed& e) {
  if (auto* const work = find(e.batch)) fail(*work, e.kind, e.reason);
}

// What is left of the work has no listener.
void TensorServer::fail(OpenWork& work, std::optional<Kind> kind, const std::string& reason) {
  work.has_failed = true;
  send_failure(work.id, kind, reason);
  for (const auto& [batch, open] : by_batch_) {
    if (open.get() == &work) pool_->cancel(batch);
  }
}

void TensorServer::on(const BatchDone& e) {
  const auto at = by_batch_.find(e.batch);
  if (at == by_batch_.end()) return;
  const auto work = std::move(at->second);
  by_batch_.erase(at);
  work->is_cancelled |= e.cancelled > 0;
  if (--work->unfinished > 0 || work->has_failed) return;
  Json message = answer(work->is_cancelled ? "cancelled" : "done", work->id);
  if (!work->is_cancelled) message["shape"] = work->shape;
  socket_.send(message);
}

void TensorServer::on(const GroupRestarted& e) {
  log::warning(str("workers are started again: ", e.reason));
}

void TensorServer::on(const GroupLost& e) {
  log::error(str("the workers are given up: ", e.reason));
}

}  // namespace atelier::cluster
