#include "cluster/worker.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cluster/fault_injection.h"
#include "cluster/model_runner.h"
#include "cluster/output_writer.h"
#include "cluster/pool_link.h"
#include "cluster/protocol.h"
#include "cluster/rank_place.h"
#include "pipeline/device.h"
#include "pipeline/leader.h"
#include "pipeline/trace.h"
#include "report/clock.h"

namespace atelier::cluster {
namespace {

// Loads, draws what it is told to, and says how it went: one thread that generates, one that stores
// (OutputWriter), one that listens (PoolLink).
class Worker {
 public:
  Worker(Channel& channel, const Json& order, const MakeRunner& make_runner)
      : channel_(channel),
        job_(job_from_json(order.at("job"))),
        info_(rank_info_from_json(order.at("rank"))),
        make_runner_(make_runner),
        faults_(std::getenv("ATELIER_FAULT"), info_.rank, info_.start),
        link_(channel, whereabouts_, gate_) {
    log::set_context(str("rank=", info_.rank));
    if (job_.engine.debug) open_log();
  }

  int run() {
    load();
    report(message::kReady);
    OutputWriter writer(
        {.put = [this](const auto& request, const auto& artifact) { return put(request, artifact); },
         .on_stored = [this](int64_t run, int request,
                             const SinkResult& stored) { on_stored(run, request, stored); },
         .on_end = [this](int64_t run, std::exception_ptr error) { on_end(run, error); }});
    for (;;) {
      const Json order = link_.wait();
      const std::string kind = kind_of(order);
      if (kind == message::kStop) break;
      if (kind == message::kBatch) {
        WriteTask task{.run = order.at("run").get<int64_t>()};
        for (const auto& request : order.at("requests"))
          task.requests.push_back(fields_from_json<request::Request>(request));
        generate(std::move(task), writer);
        report(message::kStats);
      } else if (kind == message::kCall) {
        answer(order.at("run").get<int64_t>(), tensor_call_from_json(order.at("call")));
      } else {
        throw Error(Kind::kPeer, "the pool sent " + kind);
      }
    }
    writer.finish();
    return 0;
  }

 private:
  bool leads() const { return info_.group_rank == 0; }

  // Of this rank alone, beside the pictures; on the terminal where there is no such folder.
  void open_log() {
    if (job_.sink.folder.empty()) return log::set_console(log::Level::kDebug);
    log::add_file(job_.sink.folder / "logs" / str("rank_", info_.rank, ".log"));
  }

  void load() {
    whereabouts_.phase = "connect";
    try {
      // On GPUs too: ranks that each wake a thread for every core hold each other up by milliseconds, as
      // soon as one draws a step's noise.
      if (!std::getenv("OMP_NUM_THREADS"))
        at::set_num_threads(std::max(1, usable_cores() / info_.local_size));
      device_ = device_of(job_.engine.device, info_);
      pipeline::use_device(device_);
      const report::Stopwatch watch;
      transport_ = connect(job_.pool, info_, device_);
      connect_s_ = watch.seconds();
      if (transport_) messages_ = device_.is_cuda() ? "messages: NCCL" : "messages: Gloo";
      if (transport_) transport_->observe([this](const comm::Event& e) { on_collective(e); });
      whereabouts_.phase = "load";
      faults_.reach(Fault::Phase::kLoad);
      runner_ = make_runner_(job_.engine, device_, transport_.get());
      if (leads()) sink_ = make_sink(job_.sink);
      log::debug(str("loaded on ", device_.str()));
      if (job_.engine.debug) {
        for (const auto& line : topology(job_.engine.layout, info_)) log::debug(line);
      }
    } catch (const c10::OutOfMemoryError& e) {
      fail_for_good(0, std::make_exception_ptr(Error(Kind::kCapacity, pipeline::reason_of(e))));
    } catch (...) {
      fail_for_good(0, std::current_exception());
    }
    whereabouts_.phase = "idle";
  }

  void on_collective(const comm::Event& e) {
    ++whereabouts_.collectives;
    if (!job_.engine.debug) return;
    log::debug(
        str("collective=", e.verb, " group=\"", e.group, "\" bytes=", e.bytes_sent, " peers=", e.peers));
  }

  void log_shapes(const WriteTask& task) const {
    const auto& first = task.requests.front();
    log::debug(str("batch run=", task.run, " pictures=", task.requests.size(),
                   " height=", first.height.value_or(0), " width=", first.width.value_or(0),
                   " steps=", first.num_inference_steps.value_or(0), " branches=", request::branches(first)));
  }

  void generate(WriteTask task, OutputWriter& writer) {
    const report::Stopwatch watch;
    if (job_.engine.debug) log_shapes(task);
    const int asked = static_cast<int>(task.requests.front().num_inference_steps.value_or(0));
    const bool is_done = attempt(task.run, "encode", asked, [&](const pipeline::StepCallbacks& callbacks) {
      faults_.reach(Fault::Phase::kEncode);
      const auto trace = traced();
      int steps = asked;
      auto heard = callbacks;
      heard.on_plan = [&](int planned) {
        steps = planned;
        callbacks.on_plan(planned);
      };
      heard.wants_preview = [&](int step) { return is_preview_step(task.requests, step, steps); };
      heard.on_preview = [&](int step, const auto& pictures) { on_preview(task, step, steps, pictures); };
      task.artifacts = runner_->generate(task.requests, heard);
    });
    if (!is_done || !leads()) return;
    task.seconds = watch.seconds() / static_cast<double>(task.requests.size());
    Json message = message_of(message::kGenerated, task.run);
    message["times"] = to_json(runner_->times());
    channel_.send(message);
    writer.submit(std::move(task));
  }

  // Null for a batch that is not to be traced.
  std::unique_ptr<pipeline::Trace> traced() {
    const auto& engine = job_.engine;
    const int batch = batches_++ - engine.profiled_from;
    if (engine.profile.empty() || batch < 0 || batch >= engine.profiled) return nullptr;
    const auto name = str("rank", info_.rank, ".batch", batch + engine.profiled_from, ".json");
    return std::make_unique<pipeline::Trace>(engine.profile / name, device_);
  }

  void answer(int64_t run, const TensorCall& call) {
    Json message = message_of(message::kAnswered, run);
    const bool is_done = attempt(run, "step", 1, [&](const pipeline::StepCallbacks& callbacks) {
      faults_.reach(Fault::Phase::kStep);
      message["shape"] = runner_->answer(call, callbacks);
    });
    if (is_done) channel_.send(message);
  }

  // One piece of work that all ranks do together. False: it failed, has been told of, and the next may come.
  bool attempt(int64_t run, const char* phase, int steps,
               const std::function<void(const pipeline::StepCallbacks&)>& work) {
    whereabouts_.run = run;
    whereabouts_.collectives = 0;
    whereabouts_.phase = phase;
    gate_.open(run);
    std::exception_ptr error;
    try {
      work({.on_plan = [&](int planned) { steps = planned; },
            .may_begin = [&](int step) { return may_begin(step, steps); },
            .on_step = [&](int step) { on_step(run, step, steps); },
            .on_note = [&](size_t request, const std::string& note) { on_note(run, request, note); }});
    } catch (...) {
      error = std::current_exception();
    }
    gate_.close();
    if (error) {
      if (!are_in_step(error) || !runner_->is_device_alive()) fail_for_good(run, error);
      send_failure(run, error, whereabouts_.phase);
    }
    whereabouts_.phase = "idle";
    return !error;
  }

  // Do the peers, if there are any, wait for nothing?
  bool are_in_step(const std::exception_ptr& error) const {
    if (info_.group_size == 1) return true;
    try {
      std::rethrow_exception(error);
    } catch (const pipeline::RequestError&) {
      return true;
    } catch (const Error& e) {
      return e.kind() == Kind::kInterrupted;
    } catch (...) {
      return false;
    }
  }

  bool may_begin(int step, int steps) {
    if (!gate_.may_begin(step)) return false;
    whereabouts_.phase = step < steps ? "step" : "decode";
    return true;
  }

  void on_step(int64_t run, int step, int steps) {
    faults_.reach(Fault::Phase::kStep);
    if (step + 1 == steps) faults_.reach(Fault::Phase::kDecode);
    if (!leads()) return;
    Json message = message_of(message::kStep, run);
    message["step"] = step + 1;
    message["steps"] = steps;
    channel_.send(message);
  }

  // That of the picture; of a video one that needs no other library.
  static media::Format preview_format(const std::string& name) {
    const auto format = media::format_of(name).value_or(media::Format::kPng);
    return format == media::Format::kPng || format == media::Format::kJpeg ? format : media::Format::kWebp;
  }

  static bool is_preview_step(request::Requests batch, int step, int steps) {
    return std::any_of(batch.begin(), batch.end(),
                       [&](const request::Request& r) { return request::is_previewed(r, step + 1, steps); });
  }

  void on_preview(const WriteTask& task, int step, int steps, const std::vector<media::Artifact>& pictures) {
    for (size_t i = 0; i < pictures.size() && i < task.requests.size(); ++i) {
      const auto& request = task.requests[i];
      if (!request::is_previewed(request, step + 1, steps)) continue;
      const std::string bytes =
          media::encode(pictures[i], preview_format(request.name), media::kDefaultQuality, {});
      Json message = message_of(message::kPreview, task.run);
      message["request"] = i;
      message["step"] = step + 1;
      message["data"] = Json::binary({bytes.begin(), bytes.end()});
      channel_.send(message);
    }
  }

  void on_note(int64_t run, size_t request, const std::string& note) {
    Json message = message_of(message::kNote, run);
    message["request"] = request;
    message["note"] = note;
    channel_.send(message);
  }

  SinkResult put(const request::Request& request, const media::Artifact& artifact) {
    faults_.reach(Fault::Phase::kWrite);
    return sink_->put(request, artifact);
  }

  void on_stored(int64_t run, int request, const SinkResult& stored) {
    const auto binary = [](std::string_view bytes) { return Json::binary({bytes.begin(), bytes.end()}); };
    std::string_view rest = stored.data;
    for (; rest.size() > kPieceBytes; rest.remove_prefix(kPieceBytes)) {
      Json piece = message_of(message::kPiece, run);
      piece["data"] = binary(rest.substr(0, kPieceBytes));
      channel_.send(piece);
    }
    Json message = message_of(message::kStored, run);
    message["request"] = request;
    message["bytes"] = stored.record.bytes;
    message["sha256"] = stored.record.sha256;
    message["seconds"] = stored.record.seconds;
    message["store_seconds"] = stored.store_seconds;
    message["codec"] = stored.record.codec;
    if (!rest.empty()) message["data"] = binary(rest);
    channel_.send(message);
  }

  void on_end(int64_t run, std::exception_ptr error) {
    if (error) {
      send_failure(run, error, "write");
    } else {
      channel_.send(message_of(message::kDone, run));
    }
  }

  void report(const char* kind) {
    RankStats stats = runner_->stats();
    stats.rank = info_.rank;
    if (!messages_.empty()) stats.used.insert(messages_);
    stats.seconds["connect"] = connect_s_;
    Json message = message_of(kind);
    message["stats"] = to_json(stats);
    channel_.send(message);
  }

  enum class After { kGoOn, kEnd };
  void send_failure(int64_t run, std::exception_ptr error, const char* phase, After after = After::kGoOn) {
    Json message = message_of(message::kFailed, run);
    message["phase"] = phase;
    message["is_over"] = after == After::kEnd;
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      message["kind"] = static_cast<int>(e.kind());
      message["reason"] = e.what();
    } catch (const std::exception& e) {
      message["reason"] = pipeline::reason_of(e);
    }
    channel_.send(message);
  }

  // The collectives of this rank are out of step: its peers must not wait for it.
  [[noreturn]] void fail_for_good(int64_t run, std::exception_ptr error) {
    send_failure(run, error, whereabouts_.phase, After::kEnd);
    if (transport_) transport_->abort();
    link_.wait_for_end();
  }

  Channel& channel_;
  const Job job_;
  const RankInfo info_;
  const MakeRunner& make_runner_;
  FaultPlan faults_;
  Whereabouts whereabouts_;
  StepGate gate_;
  std::unique_ptr<comm::Transport> transport_;
  std::string messages_;  // by what they travel; empty: this rank draws alone
  double connect_s_ = 0;
  std::unique_ptr<Runner> runner_;
  c10::Device device_ = c10::kCPU;
  int batches_ = 0;
  std::unique_ptr<Sink> sink_;
  PoolLink link_;
};

}  // namespace

int worker_main(int fd, const MakeRunner& make_runner) {
  const char* const given = std::getenv("ATELIER_WORKER");
  const Json identity = given ? Json::parse(given, nullptr, false) : Json::object();
  ::unsetenv("ATELIER_WORKER");
  try {
    if (!identity.is_object() || !identity.value("key", Json("")).is_string())
      throw Error(Kind::kUsage,
                  "ATELIER_WORKER in the environment is none that this program writes: unset it");
    Channel channel(fd, Channel::Side::kWorker, identity.value("key", std::string()));
    if (!channel.greet(std::chrono::minutes(1))) return 1;
    if (identity.contains("hello")) channel.send(identity.at("hello"));
    const auto order = channel.wait(std::chrono::hours(24));
    if (!order || kind_of(*order) == message::kStop) return order ? 0 : 1;
    if (kind_of(*order) != message::kJob)
      throw Error(Kind::kPeer, "the first message of a pool must be a job");
    return Worker(channel, *order, make_runner).run();
  } catch (const std::exception& e) {
    log::error(e.what());
    return 1;
  }
}

int worker_main(int fd) {
  return worker_main(
      fd, [](const pipeline::EngineConfig& config, c10::Device device, comm::Transport* transport) {
        return std::make_unique<ModelRunner>(config, device, transport);
      });
}

}  // namespace atelier::cluster
