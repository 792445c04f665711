#include "cluster/tensor_server.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <nlohmann/json.hpp>

#include "cluster/testing.h"

namespace atelier::cluster {
namespace {

using testing::HasSubstr;

// A server on a thread of its own, whose workers need no model, and its client.
class Served {
 public:
  explicit Served(int ranks = 1) : fake_(kFakeVariable, "1"), where_(kFolderVariable, folder_.path()) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    client_.emplace(Descriptor(ends[0]));
    Job job;
    job.engine.layout.ulysses = ranks;
    job.pool = {.max_retries = 2, .batch_timeout_s = 60, .start_timeout_s = 60};
    job.sink.returns_bytes = true;
    thread_ = std::thread([job, fd = ends[1]] {
      TensorServer server(job, Descriptor(fd), [](const Json& rows) {
        std::vector<request::Request> requests;
        for (const auto& row : rows) {
          auto& r = requests.emplace_back();
          r.prompt = row.at("prompt").get<std::string>(), r.name = str(requests.size(), ".png");
          r.index = static_cast<int64_t>(requests.size()), r.num_inference_steps = 2;
        }
        if (requests.empty()) throw Error(Kind::kUsage, "no row");
        std::erase_if(requests, [](const auto& r) { return r.prompt == "no picture"; });
        return requests;
      });
      server.run({{"is", "hello"}, {"name", "fake"}}, {});
    });
    EXPECT_EQ(next().message.at("is"), "hello");
  }
  ~Served() {
    client_->shut_down();
    thread_.join();
    for (const pid_t id : folder_.processes()) EXPECT_FALSE(is_running(id)) << id;
  }

  void send(const Json& message, int fd = -1) { EXPECT_TRUE(client_->send(message, fd)); }
  Packet next() {
    pollfd entry{client_->fd(), POLLIN, 0};
    if (::poll(&entry, 1, 60000) != 1) {
      ADD_FAILURE() << "no answer";
      return {Json{{"is", "nothing"}}, {}};
    }
    auto packet = client_->receive();
    return packet ? std::move(*packet) : Packet{Json{{"is", "gone"}}, {}};
  }
  // The last message of this id.
  Json end_of(int64_t id) {
    for (;;) {
      auto message = next().message;
      const std::string is = message.at("is").get<std::string>();
      const bool is_last =
          is == "done" || is == "failed" || is == "cancelled" || is == "nothing" || is == "gone";
      if (is_last && message.value("id", id) == id) return message;
    }
  }
  std::vector<pid_t> workers() const {
    auto all = folder_.processes();
    std::erase_if(all, [](pid_t id) { return !is_running(id); });
    return all;
  }

 private:
  RunFolder folder_;
  Variable fake_, where_;
  std::optional<PacketSocket> client_;
  std::thread thread_;
};

// Numbers in a memory file, with room for as many behind them.
class CallMemory {
 public:
  CallMemory() : file_(memory_file()) {
    EXPECT_EQ(::ftruncate(file_.get(), 2 * kBytes), 0);
    tensors_.emplace(str("/proc/self/fd/", file_.get()));
    latents().copy_(at::arange(kCount, at::kFloat).view({2, kCount / 2}));
  }
  int fd() const { return file_.get(); }
  at::Tensor latents() const { return tensors_->view({"float32", {2, kCount / 2}, 0}); }
  at::Tensor result() const { return tensors_->view({"float32", {2, kCount / 2}, kBytes}); }
  static Json message(int64_t id, const std::string& what = "") {
    Json out{{"id", id}, {"do", "predict"}, {"result", kBytes}, {"result_bytes", kBytes}};
    out["latents"] = {{"dtype", "float32"}, {"shape", {2, kCount / 2}}, {"offset", 0}};
    if (!what.empty()) out["adapters"] = Json::array({what});
    return out;
  }

 private:
  static constexpr int64_t kCount = 16, kBytes = 64;
  Descriptor file_;
  std::optional<MappedTensors> tensors_;
};

TEST(TensorServer, AnswersCallsOverMemory) {
  for (const int ranks : {1, 2}) {
    Served served(ranks);
    CallMemory memory;
    for (int64_t id = 1; id <= 3; ++id) {
      served.send(CallMemory::message(id), memory.fd());
      const auto end = served.end_of(id);
      EXPECT_EQ(end.at("is"), "done");
      EXPECT_EQ(end.at("shape"), Json::array({2, 8}));
      EXPECT_TRUE(at::equal(memory.result(), memory.latents() * 2));
      memory.latents().add_(1);
    }
    EXPECT_EQ(std::ssize(served.workers()), ranks);
  }
}

TEST(TensorServer, SaysWhatIsWrongAndGoesOn) {
  Served served;
  CallMemory memory;
  const auto refused = [&](const Json& message, int fd) {
    served.send(message, fd);
    const auto end = served.end_of(message.value("id", int64_t{0}));
    EXPECT_EQ(end.at("is"), "failed");
    EXPECT_EQ(end.value("kind", ""), "usage");
    return end.value("reason", "");
  };
  EXPECT_THAT(refused(CallMemory::message(1, "bad"), memory.fd()), HasSubstr("the call is bad"));
  EXPECT_THAT(refused(CallMemory::message(2), -1), HasSubstr("memory file"));
  EXPECT_THAT(refused({{"id", 3}, {"do", "dance"}}, -1), HasSubstr("dance"));
  EXPECT_THAT(refused({{"id", 4}, {"do", "draw"}, {"requests", Json::array()}}, -1), HasSubstr("no row"));
  EXPECT_THAT(refused({{"id", 5}, {"do", "draw"}}, -1), HasSubstr("understood"));
  auto odd = CallMemory::message(6);
  odd["latents"]["shape"] = "wide";
  EXPECT_THAT(refused(odd, memory.fd()), HasSubstr("understood"));
  served.send(CallMemory::message(7), memory.fd());
  EXPECT_EQ(served.end_of(7).at("is"), "done");
}

TEST(TensorServer, AnswersWhatHasNoNumberAndWhatAsksForNothing) {
  Served served;
  served.send({{"id", "x"}, {"do", "load"}});
  EXPECT_EQ(served.end_of(0).value("kind", ""), "usage");
  served.send({{"id", 2}, {"do", "draw"}, {"requests", Json::array({{{"prompt", "no picture"}}})}});
  EXPECT_EQ(served.end_of(2).at("is"), "done");
}

TEST(TensorServer, SaysNothingAfterAFailureAndDrawsNoMoreOfIt) {
  Served served;
  auto rows = Json::array({{{"prompt", "a"}}, {{"prompt", "bad"}}});
  for (int i = 0; i < 30; ++i) rows.push_back({{"prompt", "slow"}});  // 6 s
  served.send({{"id", 1}, {"do", "draw"}, {"requests", rows}});
  EXPECT_EQ(served.end_of(1).value("kind", ""), "item");
  const auto begin = std::chrono::steady_clock::now();
  served.send({{"id", 2}, {"do", "draw"}, {"requests", Json::array({{{"prompt", "b"}}})}});
  for (;;) {
    const auto message = served.next().message;
    EXPECT_EQ(message.value("id", 2), 2) << message.dump();
    const std::string is = message.at("is").get<std::string>();
    if (is != "step" && is != "artifact") break;
  }
  EXPECT_LT(seconds_since(begin), 4);
}

TEST(TensorServer, EndsWhenItIsToldToAlsoIfItsClientReadsNothing) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  std::optional<PacketSocket> client;
  client.emplace(Descriptor(ends[0]));
  std::stop_source stop;
  auto run = std::async(std::launch::async, [&] {
    TensorServer server({}, Descriptor(ends[1]), {});
    server.run({{"is", "hello"}}, stop.get_token());
  });
  for (int i = 0; i < 3000; ++i) client->send({{"id", i}, {"do", "dance"}});
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  stop.request_stop();
  EXPECT_EQ(run.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  client.reset();
}

TEST(TensorServer, TriesAgainWhenAWorkerDies) {
  Served served(2);
  CallMemory memory;
  served.send(CallMemory::message(1, "die once"), memory.fd());
  EXPECT_EQ(served.end_of(1).at("is"), "done");
  EXPECT_TRUE(at::equal(memory.result(), memory.latents() * 2));
}

TEST(TensorServer, CancelsWhatRunsAndWhatWaits) {
  Served served(2);
  CallMemory memory, other;
  served.send({{"id", 1}, {"do", "load"}});
  EXPECT_EQ(served.end_of(1).at("is"), "done");
  served.send(CallMemory::message(2, "slow"), memory.fd());
  served.send(CallMemory::message(3), other.fd());
  served.send({{"id", 3}, {"do", "cancel"}});
  EXPECT_EQ(served.end_of(3).at("is"), "cancelled");
  served.send({{"id", 2}, {"do", "cancel"}});
  EXPECT_EQ(served.end_of(2).at("is"), "cancelled");
  served.send(CallMemory::message(4), memory.fd());
  EXPECT_EQ(served.end_of(4).at("is"), "done");
}

TEST(TensorServer, GivesMemoryBack) {
  Served served(2);
  CallMemory memory;
  served.send(CallMemory::message(1), memory.fd());
  EXPECT_EQ(served.end_of(1).at("is"), "done");
  served.send(CallMemory::message(2, "slow"), memory.fd());
  served.send({{"id", 3}, {"do", "release"}});
  EXPECT_EQ(served.end_of(2).value("kind", ""), "interrupted");
  EXPECT_EQ(served.end_of(3).at("is"), "done");
  EXPECT_TRUE(served.workers().empty());
  served.send(CallMemory::message(4), memory.fd());
  EXPECT_EQ(served.end_of(4).at("is"), "done");
}

TEST(TensorServer, HandsOverPictures) {
  Served served;
  served.send({{"id", 1}, {"do", "draw"}, {"requests", Json::array({{{"prompt", "a"}}, {{"prompt", "b"}}})}});
  std::vector<std::string> prompts;
  for (;;) {
    auto packet = served.next();
    const std::string is = packet.message.at("is").get<std::string>();
    if (is == "done") break;
    ASSERT_TRUE(is == "step" || is == "artifact") << packet.message.dump();
    if (is == "step") continue;
    ASSERT_EQ(packet.descriptors.size(), 1u);
    const auto bytes = read_file(str("/proc/self/fd/", packet.descriptors.front().get()));
    EXPECT_EQ(bytes.size(), packet.message.at("bytes").get<size_t>());
    prompts.push_back(prompt_in(bytes));
  }
  EXPECT_EQ(prompts, (std::vector<std::string>{"a", "b"}));
}

TEST(MappedTensors, RefusesWhatLiesOutside) {
  const auto file = memory_file();
  ASSERT_EQ(::ftruncate(file.get(), 256), 0);
  const MappedTensors memory(str("/proc/self/fd/", file.get()));
  EXPECT_EQ(memory.view({"float16", {4, 8}, 64}).numel(), 32);
  EXPECT_THROW(memory.view({"float32", {65}, 0}), Error);
  EXPECT_THROW(memory.view({"float32", {4}, 8}), Error);
  EXPECT_THROW(memory.view({"float32", {4}, -16}), Error);
  EXPECT_THROW(memory.view({"float32", {int64_t{1} << 39, int64_t{1} << 39}, 0}), Error);
  // 2^64 bytes, and numbers of which there are none
  EXPECT_THROW(memory.view({"float32", {int64_t{1} << 38, int64_t{1} << 24}, 0}), Error);
  EXPECT_THROW(memory.view({"float32", {0, int64_t{1} << 62, 4}, 0}), Error);
  EXPECT_THROW(memory.view({"float8", {4}, 0}), Error);
  EXPECT_THROW(MappedTensors("/nowhere"), Error);
}

}  // namespace
}  // namespace atelier::cluster
