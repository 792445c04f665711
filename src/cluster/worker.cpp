#include "cluster/worker.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "cluster/channel.h"
#include "cluster/fault_injection.h"
#include "cluster/model_runner.h"
#include "cluster/output_writer.h"
#include "cluster/protocol.h"
#include "pipeline/device.h"
#include "pipeline/leader.h"
#include "report/clock.h"

namespace atelier::cluster {
namespace {

constexpr int kHeartbeatMs = 500;

// What the heartbeat tells: where this rank is, so that the supervisor can name who is late.
struct Whereabouts {
  std::atomic<int64_t> batch{0};
  std::atomic<const char*> phase{"start"};
  std::atomic<int> step{0};
};

// The socket's thread: heartbeats out, orders in. The end of the supervisor is the end of the process.
class Line {
 public:
  Line(Channel& channel, const Whereabouts& whereabouts)
      : channel_(channel), whereabouts_(whereabouts), thread_([this] { work(); }) {}
  ~Line() {
    is_over_ = true;
    thread_.join();
  }

  Json wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !orders_.empty(); });
    Json order = std::move(orders_.front());
    orders_.pop_front();
    return order;
  }
  // After a failure this rank only waits for its end. A stop in the middle of a batch comes here too.
  [[noreturn]] void wait_for_end() {
    while (kind_of(wait()) != message::kStop) continue;
    ::_exit(1);
  }

 private:
  void work() {
    auto beat = std::chrono::steady_clock::now();
    while (!is_over_) {
      if (std::chrono::steady_clock::now() >= beat) {
        beat = std::chrono::steady_clock::now() + std::chrono::milliseconds(kHeartbeatMs);
        Json alive = message_of(message::kAlive);
        alive["batch"] = whereabouts_.batch.load();
        alive["phase"] = whereabouts_.phase.load();
        alive["step"] = whereabouts_.step.load();
        if (!channel_.send(alive)) ::_exit(1);
      }
      pollfd entry{channel_.fd(), POLLIN, 0};
      ::poll(&entry, 1, kHeartbeatMs / 5);
      if (entry.revents) listen();
    }
  }

  void listen() {
    try {
      const bool is_open = channel_.take_in();
      while (auto order = channel_.next()) {
        const std::scoped_lock lock(mutex_);
        orders_.push_back(std::move(*order));
        changed_.notify_all();
      }
      if (!is_open) ::_exit(1);
    } catch (const std::exception& e) {
      log::error(e.what());
      ::_exit(1);
    }
  }

  Channel& channel_;
  const Whereabouts& whereabouts_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Json> orders_;
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

std::unique_ptr<comm::Transport> connect(const Job& job, const RankInfo& info, c10::Device device) {
  if (info.size == 1) return nullptr;
  comm::Rendezvous rendezvous;
  rendezvous.file = info.rendezvous_file;
  rendezvous.host = info.rendezvous_host;
  rendezvous.port = info.rendezvous_port;
  rendezvous.rank = info.rank;
  rendezvous.size = info.size;
  // the supervisor notices ranks that hang, with knowledge of all of them: its time-outs come first
  const double patience_s = std::max(job.pool.start_timeout_s, job.pool.batch_timeout_s) + 60;
  rendezvous.timeout = std::chrono::milliseconds(static_cast<int64_t>(patience_s * 1000));
#ifdef ATELIER_CUDA
  if (device.is_cuda()) return comm::connect_nccl(rendezvous);
#endif
  if (device.is_cuda()) throw Error(Kind::kUsage, "this build knows no GPUs; use device cpu");
  return comm::connect_gloo(rendezvous);
}

// A launcher may show each process one device only.
c10::Device device_of(const Job& job, const RankInfo& info) {
  if (job.engine.device == "cpu") return c10::kCPU;
  const int devices = pipeline::cuda_devices();
  const bool is_named = job.engine.device != "cuda";  // "cuda:1", which one rank may ask for
  const int by_rank = devices == 1 ? 0 : info.local_rank;
  const int number = is_named ? device_named(job.engine.device, 0).index() : by_rank;
  if (number >= devices) {
    throw Error(Kind::kUsage,
                str("rank ", info.rank, " needs device ", number, " of its host, which has ", devices,
                    " GPUs that this process may use; give num_gpus ", devices, " or fewer"));
  }
  return device_named("cuda", number);
}

class Worker {
 public:
  Worker(Channel& channel, const Json& order)
      : channel_(channel),
        job_(job_from_json(order.at("job"))),
        place_(rank_info_from_json(order.at("rank_info"))),
        faults_(std::getenv("ATELIER_FAULT"), place_.rank, place_.start),
        line_(channel, whereabouts_) {
    log::set_context(str("rank=", place_.rank));
    if (job_.engine.debug) log::set_console(log::Level::kDebug);
  }

  int run() {
    load();
    report(message::kReady);
    OutputWriter writer(
        {.write = [this](const auto& request, const auto& artifact) { return write(request, artifact); },
         .on_picture = [this](int64_t batch, const Finished& f) { on_picture(batch, f); },
         .on_end = [this](const jobs::Batch& b, std::exception_ptr e) { on_end(b, e); }});
    for (;;) {
      const Json order = line_.wait();
      const std::string kind = kind_of(order);
      if (kind == message::kStop) break;
      if (kind != message::kBatch) throw Error(Kind::kPeer, "the supervisor sent " + kind);
      jobs::Batch batch{order.at("id").get<int64_t>(), order.at("attempt").get<int>(), {}};
      for (const auto& request : order.at("requests")) batch.requests.push_back(request_from_json(request));
      draw(std::move(batch), writer);
    }
    writer.finish();
    report(message::kStats);
    return 0;
  }

 private:
  void load() {
    whereabouts_.phase = "connect";
    try {
      if (job_.engine.device == "cpu" && !std::getenv("OMP_NUM_THREADS"))
        at::set_num_threads(
            std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / place_.local_size));
      const auto device = device_of(job_, place_);
      pipeline::use_device(device);
      transport_ = connect(job_, place_, device);
      if (transport_ && job_.engine.debug) {
        transport_->observe([](const comm::Event& e) {
          log::debug(str("collective=", e.verb, " group=\"", e.group, "\" bytes=", e.bytes_sent,
                         " peers=", e.peers));
        });
      }
      whereabouts_.phase = "load";
      faults_.reach(Fault::Phase::kLoad);
      studio_.emplace(job_, device, transport_.get());
      log::debug(str("loaded on ", device.str()));
    } catch (const c10::OutOfMemoryError& e) {
      fail_for_good(0, std::make_exception_ptr(Error(Kind::kCapacity, pipeline::reason_of(e))));
    } catch (...) {
      fail_for_good(0, std::current_exception());
    }
    whereabouts_.phase = "idle";
  }

  void draw(jobs::Batch batch, OutputWriter& writer) {
    const report::Stopwatch callbacks;
    whereabouts_.batch = batch.id;
    whereabouts_.step = 0;
    whereabouts_.phase = "encode";
    std::vector<media::Artifact> artifacts;
    try {
      faults_.reach(Fault::Phase::kEncode);
      artifacts = studio_->generate(batch.requests, {.on_step = [&](int step) { on_step(batch, step); }});
    } catch (...) {
      const bool may_go_on = is_in_step(std::current_exception()) && studio_->is_device_alive();
      if (!may_go_on) fail_for_good(batch.id, std::current_exception());
      if (studio_->leads()) send_failure(batch.id, std::current_exception(), false, whereabouts_.phase);
      whereabouts_.phase = "idle";
      return;
    }
    whereabouts_.phase = "idle";
    const double seconds = callbacks.seconds() / static_cast<double>(batch.requests.size());
    if (artifacts.empty()) return;
    Json drawn = message_of(message::kDrawn);
    const BatchTimes times = studio_->times();
    drawn["batch"] = batch.id;
    drawn["seconds"] = times.seconds;
    drawn["step_ms"] = times.step_ms;
    channel_.send(drawn);
    writer.submit(std::move(batch), std::move(artifacts), seconds);
  }

  // Do the peers, if there are any, wait for nothing?
  bool is_in_step(const std::exception_ptr& error) const {
    if (studio_->is_alone()) return true;
    try {
      std::rethrow_exception(error);
    } catch (const pipeline::RequestError&) {
      return true;
    } catch (...) {
      return false;
    }
  }

  void on_step(const jobs::Batch& batch, int step) {
    const int steps = batch.requests.front().num_inference_steps.value_or(0);
    whereabouts_.phase = "step";
    whereabouts_.step = step;
    faults_.reach(Fault::Phase::kStep);
    if (step + 1 == steps) {
      whereabouts_.phase = "decode";
      faults_.reach(Fault::Phase::kDecode);
    }
    Json message = message_of(message::kStep);
    message["batch"] = batch.id;
    message["step"] = step + 1;
    message["steps"] = steps;
    channel_.send(message);
  }

  jobs::Stored write(const request::Request& request, const media::Artifact& artifact) {
    faults_.reach(Fault::Phase::kWrite);
    return studio_->write(request, artifact);
  }

  void on_picture(int64_t batch, const Finished& finished) {
    Json message = message_of(message::kPicture);
    message["batch"] = batch;
    message["name"] = finished.request.name;
    message["bytes"] = finished.stored.bytes;
    message["sha256"] = finished.stored.sha256;
    message["seconds"] = finished.stored.seconds;
    channel_.send(message);
  }

  void on_end(const jobs::Batch& batch, std::exception_ptr error) {
    if (error) {
      send_failure(batch.id, error, false, "write");
      return;
    }
    Json message = message_of(message::kDone);
    message["batch"] = batch.id;
    channel_.send(message);
  }

  void report(const char* kind) {
    Json message = message_of(kind);
    message["stats"] = to_json(studio_->stats());
    channel_.send(message);
  }

  void send_failure(int64_t batch, std::exception_ptr error, bool is_over, const char* phase) {
    Json message = message_of(message::kFailed);
    message["batch"] = batch;
    message["phase"] = phase;
    message["is_over"] = is_over;
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      message["kind"] = static_cast<int>(e.kind());
      message["reason"] = e.what();
    } catch (const std::exception& e) {
      message["kind"] = static_cast<int>(Kind::kItem);
      message["reason"] = pipeline::reason_of(e);
    }
    channel_.send(message);
  }

  // The collectives of this rank are out of step: its peers must not wait for it.
  [[noreturn]] void fail_for_good(int64_t batch, std::exception_ptr error) {
    send_failure(batch, error, true, whereabouts_.phase);
    if (transport_) transport_->abort();
    line_.wait_for_end();
  }

  Channel& channel_;
  const Job job_;
  const RankInfo place_;
  FaultPlan faults_;
  Whereabouts whereabouts_;
  std::unique_ptr<comm::Transport> transport_;
  std::optional<ModelRunner> studio_;
  Line line_;
};

}  // namespace

int worker_main(int fd) {
  // Ctrl-C reaches every process of a terminal; what it means is the supervisor's to say
  ::signal(SIGINT, SIG_IGN);
  const char* const given = std::getenv("ATELIER_WORKER");
  const Json identity = given ? Json::parse(given, nullptr, false) : Json::object();
  ::unsetenv("ATELIER_WORKER");
  try {
    Channel channel(fd, Channel::Side::kWorker, identity.value("key", std::string()));
    if (identity.contains("hello")) channel.send(identity.at("hello"));
    const auto order = channel.wait(std::chrono::hours(24));
    if (!order || kind_of(*order) == message::kStop) return order ? 0 : 1;
    if (kind_of(*order) != message::kJob)
      throw Error(Kind::kPeer, "the first message of a supervisor must be a job");
    Worker worker(channel, *order);
    return worker.run();
  } catch (const std::exception& e) {
    log::error(e.what());
    return 1;
  }
}

}  // namespace atelier::cluster
