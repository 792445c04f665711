// The main function of this room's tests: the program is also its own worker, as atelier is; with
// ATELIER_TEST_FAKE_WORKER set, one that keeps the protocol and writes its prompts instead of pictures.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "cluster/channel.h"
#include "cluster/fault_injection.h"
#include "cluster/process.h"
#include "cluster/protocol.h"
#include "cluster/supervisor.h"
#include "cluster/worker.h"

namespace atelier::cluster {
namespace {

class FakeWorker {
 public:
  FakeWorker(Channel& channel, const Json& order)
      : channel_(channel),
        job_(job_from_json(order.at("job"))),
        place_(rank_info_from_json(order.at("rank_info"))),
        faults_(std::getenv("ATELIER_FAULT"), place_.rank, place_.start),
        pulse_([this] { beat(); }) {}
  ~FakeWorker() {
    is_over_ = true;
    pulse_.join();
  }

  int run() {
    std::ofstream(job_.sink.folder / str("process-", ::getpid())) << place_.rank;
    guarded(0, "load", [&] {
      faults_.reach(Fault::Phase::kLoad);
      meet();
      if (job_.engine.model.preset == "broken") throw Error(Kind::kCheckpoint, "a tensor is missing");
    });
    RankStats stats{.rank = place_.rank, .device = "none"};
    Json ready = message_of(message::kReady);
    ready["stats"] = to_json(stats);
    channel_.send(ready);
    for (;;) {
      const auto order = channel_.wait(std::chrono::hours(1));
      if (!order) return 1;
      if (kind_of(*order) == message::kStop) break;
      draw(*order);
    }
    stats.seconds = {{"denoise", 2}};
    Json last = message_of(message::kStats);
    last["stats"] = to_json(stats);
    channel_.send(last);
    return 0;
  }

 private:
  // As real workers do when they open their groups.
  void meet() const {
    const auto file = [&](int rank) { return job_.sink.folder / str("start-", place_.start, "-", rank); };
    std::ofstream(file(place_.rank)) << ' ';
    for (int rank = 0; rank < place_.size; ++rank) {
      while (!std::filesystem::exists(file(rank))) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  void beat() {
    while (!is_over_) {
      Json alive = message_of(message::kAlive);
      alive["batch"] = 0, alive["phase"] = "step", alive["step"] = 0;
      if (!channel_.send(alive)) ::_exit(1);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  template <class Act>
  void guarded(int64_t batch, const char* phase, const Act& act) {
    Json failure = message_of(message::kFailed);
    try {
      act();
      return;
    } catch (const Error& e) {
      failure["kind"] = static_cast<int>(e.kind());
      failure["reason"] = e.what();
    } catch (const std::exception& e) {
      failure["kind"] = static_cast<int>(Kind::kItem);
      failure["reason"] = e.what();
    }
    failure["batch"] = batch, failure["phase"] = phase, failure["is_over"] = true;
    channel_.send(failure);
    for (;;) ::pause();
  }

  void draw(const Json& order) {
    const auto id = order.at("id").get<int64_t>();
    constexpr int kSteps = 3;
    guarded(id, "step", [&] {
      faults_.reach(Fault::Phase::kEncode);
      for (int step = 0; step < kSteps; ++step) {
        faults_.reach(Fault::Phase::kStep);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        Json message = message_of(message::kStep);
        message["batch"] = id, message["step"] = step + 1, message["steps"] = kSteps;
        channel_.send(message);
      }
      faults_.reach(Fault::Phase::kDecode);
    });
    if (place_.rank % (place_.size / job_.engine.layout.data) != 0) return;
    tell(message::kDrawn, id);
    for (const auto& json : order.at("requests")) write(id, request_from_json(json));
    tell(message::kDone, id);
  }

  void write(int64_t id, const request::Request& request) {
    guarded(id, "write", [&] {
      if (request.prompt == "too much") throw Error(Kind::kCapacity, "the disk is full");
      const auto unfinished = job_.sink.folder / str(".atelier-host-", ::getpid(), "-0.tmp");
      std::ofstream(unfinished) << request.prompt;
      faults_.reach(Fault::Phase::kWrite);
      std::filesystem::rename(unfinished, job_.sink.folder / request.name);
    });
    Json message = message_of(message::kPicture);
    message["batch"] = id, message["name"] = request.name, message["bytes"] = request.prompt.size(),
    message["sha256"] = "", message["seconds"] = 0.1;
    channel_.send(message);
  }

  void tell(const char* kind, int64_t batch) {
    Json message = message_of(kind);
    message["batch"] = batch;
    channel_.send(message);
  }

  Channel& channel_;
  const Job job_;
  const RankInfo place_;
  FaultPlan faults_;
  std::atomic<bool> is_over_{false};
  std::thread pulse_;
};

int fake_worker_main(int fd) {
  const char* const given = std::getenv("ATELIER_WORKER");
  const Json identity = given ? Json::parse(given) : Json::object();
  Channel channel(fd, Channel::Side::kWorker, identity.value("key", std::string()));
  if (identity.contains("hello")) channel.send(identity.at("hello"));
  const auto order = channel.wait(std::chrono::seconds(60));
  const bool is_first = order && order->at("rank_info").at("start") == 0;
  if (is_first && std::getenv("ATELIER_TEST_MUTE") && order->at("rank_info").at("rank") == 1)
    ::raise(SIGSTOP);
  return order ? FakeWorker(channel, *order).run() : 1;
}

// A run of its own, to be killed.
int supervise(const char* folder) {
  Job job;
  job.engine.layout.data = 2;
  job.sink.folder = folder;
  std::vector<std::vector<request::Request>> batches;
  for (int i = 0; i < 10000; ++i) batches.push_back({{.prompt = "p", .name = std::to_string(i)}});
  jobs::Queue queue(std::move(batches), 0);
  run_job(job, queue, {}, {});
  return 0;
}

int main_of_tests(int argc, char** argv) {
  if (argc == 4 && !std::strcmp(argv[1], "worker")) {
    return std::getenv("ATELIER_TEST_FAKE_WORKER") ? fake_worker_main(std::atoi(argv[3]))
                                                   : worker_main(std::atoi(argv[3]));
  }
  if (argc == 3 && !std::strcmp(argv[1], "supervise")) return supervise(argv[2]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace atelier::cluster

int main(int argc, char** argv) {
  return atelier::cluster::main_of_tests(argc, argv);
}
