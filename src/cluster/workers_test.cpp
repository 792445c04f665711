// The main function of this room's tests: the program is also its own worker, as atelier is. With a variable
// set, one around a runner that needs no model or waits where it is told to, or something that only looks
// like a worker.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cluster/model_runner.h"
#include "cluster/testing.h"
#include "cluster/worker.h"
#include "jobs/output_folder.h"
#include "pipeline/denoise.h"
#include "pipeline/leader.h"

namespace atelier::cluster {
namespace {

constexpr int kSteps = 3;

// Draws one pixel per prompt, in steps that need all ranks of the replica.
class FakeRunner : public Runner {
 public:
  FakeRunner(const pipeline::EngineConfig& config, comm::Transport* transport)
      : folder_(std::getenv(kFolderVariable)) {
    std::ofstream(folder_ / str("process-", ::getpid())) << ' ';
    // as a writer has it that is ended in the middle of a file
    std::ofstream(folder_ / jobs::temporary_name()) << "half";
    if (std::filesystem::exists(folder_ / "full")) throw Error(Kind::kCapacity, "the model does not fit");
    if (config.model.preset == "broken") throw Error(Kind::kCheckpoint, "a tensor is missing");
    if (!transport) return;
    std::vector<int> ranks(static_cast<size_t>(transport->size()));
    for (int i = 0; i < transport->size(); ++i) ranks[static_cast<size_t>(i)] = i;
    group_ = transport->open(ranks, "fake");
  }

  std::vector<media::Artifact> generate(request::Requests requests,
                                        const pipeline::StepCallbacks& callbacks) override {
    const std::string& prompt = requests.front().prompt;
    if (prompt == "vanish") std::filesystem::remove_all(folder_);
    for (const auto& request : requests) {
      if (request.prompt == "bad") throw pipeline::RequestError(Kind::kItem, "the prompt is bad");
    }
    if (prompt == "rank 1 alone fails" && group_ && group_->rank() == 1) throw Error(Kind::kCapacity, "full");
    const auto begin = [&](int step) {
      if (!callbacks.may_begin(step)) throw Error(Kind::kInterrupted, "cancelled");
      if (group_) group_->barrier();
    };
    const int steps = static_cast<int>(requests.front().num_inference_steps.value_or(kSteps));
    for (int step = 0; step < steps; ++step) {
      begin(step);
      std::this_thread::sleep_for(std::chrono::milliseconds(prompt == "slow" ? 100 : 5));
      callbacks.on_step(step);
    }
    begin(steps);
    if (group_ && group_->rank() != 0) return {};
    if (prompt == "large") return {requests.size(), noise(1300, 1200)};
    return {requests.size(), media::Image{.width = 1, .height = 1, .rgb = {1, 2, 3}}};
  }

  // Twice the latents, once all ranks are there. Adapters say what else is to happen.
  std::vector<int64_t> answer(const TensorCall& call, const pipeline::StepCallbacks& callbacks) override {
    const std::string what = call.adapters.empty() ? "" : call.adapters.front();
    if (what == "bad") throw pipeline::RequestError(Kind::kUsage, "the call is bad");
    if (what == "die once" && !std::filesystem::exists(folder_ / "died")) {
      std::ofstream(folder_ / "died") << ' ';
      ::raise(SIGKILL);
    }
    if (what == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(500));
    if (!callbacks.may_begin(0)) throw Error(Kind::kInterrupted, "cancelled");
    if (group_) group_->barrier();
    const MappedTensors memory(call.memory);
    const auto latents = memory.view(call.latents);
    if (group_ && group_->rank() != 0) return {};
    memory.view({"float32", latents.sizes().vec(), call.result}).copy_(latents + latents);
    return latents.sizes().vec();
  }

  RankStats stats() const override { return {.device = "none"}; }
  BatchTimes times() const override { return {.seconds = {{"denoise", 0.1}}, .step_ms = {1, 2}}; }

 private:
  // Which no encoder makes smaller.
  static media::Image noise(int width, int height) {
    media::Image image{width, height, std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width * height))};
    uint32_t state = 1;
    for (auto& value : image.rgb) value = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    return image;
  }
  const std::filesystem::path folder_;
  std::unique_ptr<comm::Comm> group_;
};

// A real model that stands before the steps which the test holds (HeldSteps), for as long as it does.
class HeldRunner : public Runner {
 public:
  HeldRunner(const pipeline::EngineConfig& config, c10::Device device, comm::Transport* transport)
      : steps_(std::getenv(kHeldVariable)),
        rank_(transport ? transport->rank() : 0),
        inner_(config, device, transport) {}
  std::vector<media::Artifact> generate(request::Requests requests,
                                        const pipeline::StepCallbacks& callbacks) override {
    auto held = callbacks;
    held.may_begin = [&](int step) {
      steps_.stand_before(requests.front().name, step, rank_);
      return callbacks.may_begin(step);
    };
    return inner_.generate(requests, held);
  }
  RankStats stats() const override { return inner_.stats(); }
  BatchTimes times() const override { return inner_.times(); }

 private:
  const HeldSteps steps_;
  const int rank_;
  ModelRunner inner_;
};

// A worker that breaks the protocol; false: this one is to be as others.
bool is_odd(int fd) {
  const char* const given = std::getenv(kOddVariable);
  if (!given || !*given) return false;
  std::istringstream text(given);
  std::string kind;
  int rank = 0;
  text >> kind >> rank;
  // the job stays in the socket for who comes after
  std::string peek(65536, '\0');
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  peek.resize(static_cast<size_t>(std::max<ssize_t>(0, ::recv(fd, peek.data(), peek.size(), MSG_PEEK))));
  if (peek.find(str("\"rank\":", rank, ",")) == std::string::npos ||
      peek.find("\"start\":0") == std::string::npos)
    return false;
  if (kind == "mute") ::raise(SIGSTOP);
  Channel channel(fd, Channel::Side::kWorker);
  Json ready = message_of(message::kReady);
  ready["stats"] = to_json(RankStats{.rank = rank});
  channel.send(ready);
  for (;;) {
    Json alive = message_of(message::kAlive, 0);
    alive["phase"] = "idle", alive["step"] = 0, alive["collectives"] = 0;
    if (!channel.send(alive)) ::_exit(1);
    if (kind == "babble") channel.send(message_of(message::kStored));  // of no batch
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

int fake_worker_main(int fd) {
  return is_odd(fd) ? 1
                    : worker_main(fd, [](const pipeline::EngineConfig& config, c10::Device,
                                         comm::Transport* transport) {
                        return std::make_unique<FakeRunner>(config, transport);
                      });
}

// A run of its own, to be killed.
int supervise(const char* folder) {
  Job config;
  config.engine.layout.data = 2;
  config.sink.folder = folder;
  std::vector<std::vector<request::Request>> batches;
  for (int i = 0; i < 10000; ++i) batches.push_back({{.prompt = "p", .name = str(i, ".png")}});
  run_batches(config, std::move(batches), {}, {});
  return 0;
}

int main_of_tests(int argc, char** argv) {
  if (argc == 4 && !std::strcmp(argv[1], "worker")) {
    const int fd = std::atoi(argv[3]);
    if (std::getenv(kFakeVariable)) return fake_worker_main(fd);
    if (!std::getenv(kHeldVariable)) return worker_main(fd);
    return worker_main(
        fd, [](const pipeline::EngineConfig& config, c10::Device device, comm::Transport* transport) {
          return std::make_unique<HeldRunner>(config, device, transport);
        });
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
