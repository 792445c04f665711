// Frames between processes: whole, keyed, and refused when they are not ours.
#include "cluster/channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "cluster/protocol.h"

namespace atelier::cluster {
namespace {

using namespace std::chrono_literals;

struct Pair {
  explicit Pair(const std::string& key = "", const std::string& other_key = "") {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    supervisor = std::make_unique<Channel>(fds[0], Channel::Side::kSupervisor, key);
    worker = std::make_unique<Channel>(fds[1], Channel::Side::kWorker, other_key);
  }
  std::unique_ptr<Channel> supervisor, worker;
};

Json numbered(int n) {
  Json message = message_of(message::kStep);
  message["step"] = n;
  return message;
}

TEST(Wire_MessagesArriveWholeAndInOrder, WithAndWithoutAKey) {
  for (const std::string key : {"", "a secret"}) {
    Pair pair(key, key);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(pair.supervisor->send(numbered(i)));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(pair.worker->wait(5s), numbered(i));
    EXPECT_TRUE(pair.worker->send(numbered(7)));
    EXPECT_EQ(pair.supervisor->wait(5s), numbered(7));
    EXPECT_FALSE(pair.supervisor->wait(1ms));
  }
}

TEST(Wire_LongMessagesAndOddTextArrive, Once) {
  Pair pair;
  Json message = message_of(message::kBatch);
  message["prompt"] = std::string(3'000'000, 'x') + "ß\n\"\\";
  std::thread sender([&] { EXPECT_TRUE(pair.supervisor->send(message)); });
  EXPECT_EQ(pair.worker->wait(20s), message);
  sender.join();
}

TEST(Wire_TextThatIsNoUtf8IsSentMended, InsteadOfThrowing) {
  Pair pair;
  Json message = message_of(message::kFailed);
  message["reason"] = "a\xff";
  EXPECT_TRUE(pair.worker->send(message));
  EXPECT_EQ(pair.supervisor->wait(5s)->at("reason"), "a\xEF\xBF\xBD");
}

TEST(Wire_AnotherKeyIsRefused, InBothDirections) {
  Pair pair("one", "two");
  pair.supervisor->send(numbered(1));
  EXPECT_THROW(pair.worker->wait(5s), Error);
  Pair missing("", "two");
  missing.supervisor->send(numbered(1));
  missing.supervisor->shut_down();
  try {
    EXPECT_FALSE(missing.worker->wait(5s));
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kPeer);
  }
}

TEST(Wire_AFrameCannotBeReplayedOrReflected, WithAKey) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  Channel worker(fds[1], Channel::Side::kWorker, "key");
  Pair source("key", "key");
  source.supervisor->send(numbered(1));
  std::string frame(4096, '\0');
  frame.resize(static_cast<size_t>(::recv(source.worker->fd(), frame.data(), frame.size(), 0)));
  ASSERT_EQ(::send(fds[0], frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  EXPECT_EQ(worker.wait(5s), numbered(1));
  ::send(fds[0], frame.data(), frame.size(), 0);
  EXPECT_THROW(worker.wait(5s), Error);
  Pair mirror("key", "key");
  ::send(mirror.worker->fd(), frame.data(), frame.size(), 0);
  EXPECT_THROW(mirror.supervisor->wait(5s), Error);
  ::close(fds[0]);
}

TEST(Wire_GarbageIsRefused, NotAllocated) {
  for (const auto& bytes : {std::string("\xff\xff\xff\xff----"), std::string("\x02\0\0\0[]", 6),
                            std::string("\x03\0\0\0{\"a", 7)}) {
    Pair pair;
    ASSERT_EQ(::send(pair.supervisor->fd(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_THROW(pair.worker->wait(5s), Error);
  }
}

TEST(Wire_TheEndOfTheOtherSideIsNoticed, AfterItsLastMessage) {
  Pair pair;
  pair.worker->send(numbered(1));
  pair.worker.reset();
  EXPECT_TRUE(pair.supervisor->wait(5s));
  EXPECT_FALSE(pair.supervisor->take_in());
  EXPECT_FALSE(pair.supervisor->send(numbered(2)));
}

TEST(Wire_ItemsAndPlacesComeBackEqual, WithUnsetValuesUnset) {
  request::Request request{.prompt = "p", .negative_prompt = "n", .index = 4, .sub = 1, .name = "a/b.png"};
  request.seed = 0xffffffffffffffffull;
  request.guidance_scale = 3.5;
  const auto back = request_from_json(Json::parse(to_json(request).dump()));
  EXPECT_EQ(back.seed, request.seed);
  EXPECT_EQ(back.guidance_scale, request.guidance_scale);
  EXPECT_FALSE(back.height);
  EXPECT_EQ(back.name, request.name);
  EXPECT_TRUE(back.negative_prompt);
  const auto info = rank_info_from_json(
      to_json(RankInfo{.rank = 3, .size = 8, .local_rank = 1, .rendezvous_host = "h", .rendezvous_port = 5}));
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.rendezvous_port, 5);
  EXPECT_THROW(rank_info_from_json(Json::object()), Error);
  EXPECT_THROW(request_from_json({{"index", "one"}}), Error);
}

}  // namespace
}  // namespace atelier::cluster
