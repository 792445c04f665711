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
    pool = std::make_unique<Channel>(fds[0], Channel::Side::kPool, key);
    worker = std::make_unique<Channel>(fds[1], Channel::Side::kWorker, other_key);
    if (!key.empty() && !other_key.empty()) {
      EXPECT_TRUE(worker->greet(5s));
      EXPECT_TRUE(pool->greet(5s));
    }
  }
  std::unique_ptr<Channel> pool, worker;
};

Json numbered(int n) {
  Json message = message_of(message::kStep);
  message["step"] = n;
  return message;
}

TEST(Wire_MessagesArriveWholeAndInOrder, WithAndWithoutAKey) {
  for (const std::string key : {"", "a secret"}) {
    Pair pair(key, key);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(pair.pool->send(numbered(i)));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(pair.worker->wait(5s), numbered(i));
    EXPECT_TRUE(pair.worker->send(numbered(7)));
    EXPECT_EQ(pair.pool->wait(5s), numbered(7));
    EXPECT_FALSE(pair.pool->wait(1ms));
  }
}

TEST(Wire_LongMessagesAndOddTextArrive, ButNotAsTheFirst) {
  Json message = message_of(message::kBatch);
  message["prompt"] = std::string(3'000'000, 'x') + "ß\n\"\\";
  for (const bool is_first : {false, true}) {
    Pair pair;
    if (!is_first) pair.worker->send(numbered(1));
    std::thread sender([&] { pair.worker->send(message); });
    if (is_first) {
      EXPECT_THROW(pair.pool->wait(20s), Error);
      pair.pool->shut_down();
    } else {
      EXPECT_EQ(pair.pool->wait(20s), numbered(1));
      EXPECT_EQ(pair.pool->wait(20s), message);
    }
    sender.join();
  }
}

TEST(Wire_TextThatIsNoUtf8IsSentMended, InsteadOfThrowing) {
  Pair pair;
  Json message = message_of(message::kFailed);
  message["reason"] = "a\xff";
  EXPECT_TRUE(pair.worker->send(message));
  EXPECT_EQ(pair.pool->wait(5s)->at("reason"), "a\xEF\xBF\xBD");
}

TEST(Wire_AnotherKeyIsRefused, InBothDirections) {
  Pair pair("one", "two");
  pair.pool->send(numbered(1));
  EXPECT_THROW(pair.worker->wait(5s), Error);
  Pair missing("", "two");
  missing.pool->send(numbered(1));
  missing.pool->shut_down();
  try {
    EXPECT_FALSE(missing.worker->wait(5s));
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kPeer);
  }
}

// All that lies in a socket.
std::string take_bytes(int fd) {
  std::string bytes(1 << 16, '\0');
  bytes.resize(
      static_cast<size_t>(std::max<ssize_t>(0, ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT))));
  return bytes;
}

TEST(Wire_AFrameCannotBeReplayed, OnTheSameConnectionNorOnAnother) {
  Pair source("key", "key");
  source.pool->send(numbered(1));
  const std::string frame = take_bytes(source.worker->fd());
  ASSERT_EQ(::send(source.pool->fd(), frame.data(), frame.size(), 0), std::ssize(frame));
  EXPECT_EQ(source.worker->wait(5s), numbered(1));
  ASSERT_EQ(::send(source.pool->fd(), frame.data(), frame.size(), 0), std::ssize(frame));
  EXPECT_THROW(source.worker->wait(5s), Error);
  Pair other("key", "key");
  ASSERT_EQ(::send(other.pool->fd(), frame.data(), frame.size(), 0), std::ssize(frame));
  EXPECT_THROW(other.worker->wait(5s), Error);
}

TEST(Wire_AFrameCannotBeReflected, WithAKey) {
  Pair pair("key", "key");
  pair.pool->send(numbered(1));
  const std::string frame = take_bytes(pair.worker->fd());
  ASSERT_EQ(::send(pair.worker->fd(), frame.data(), frame.size(), 0), std::ssize(frame));
  EXPECT_THROW(pair.pool->wait(5s), Error);
}

TEST(Wire_BytesTravelBehindTheText, AsTheyAre) {
  for (const std::string key : {"", "a secret"}) {
    Pair pair(key, key);
    EXPECT_TRUE(pair.worker->send(numbered(0)));  // first messages are short
    EXPECT_EQ(pair.pool->wait(5s), numbered(0));
    std::vector<uint8_t> bytes(100'000);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
    for (const auto& data : {bytes, std::vector<uint8_t>(), std::vector<uint8_t>{0}}) {
      Json message = numbered(1);
      message["data"] = Json::binary(data);
      std::thread sender([&] { EXPECT_TRUE(pair.worker->send(message)); });
      const auto found = pair.pool->wait(5s);
      sender.join();
      ASSERT_TRUE(found);
      EXPECT_EQ(static_cast<const std::vector<uint8_t>&>(found->at("data").get_binary()), data);
      EXPECT_EQ(found->at("step"), 1);
    }
  }
}

TEST(Wire_ThePoolNeverWaitsForAReader, AndKeepsNoMoreThanABound) {
  Pair pair;
  Json message = numbered(1);
  pair.pool->send(numbered(0));
  EXPECT_EQ(pair.worker->wait(5s), numbered(0));
  message["prompt"] = std::string(1 << 20, 'x');
  const auto begin = std::chrono::steady_clock::now();
  int taken = 0;
  while (pair.pool->send(message)) ASSERT_LT(++taken, 40);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  EXPECT_GE(taken, 16);
  EXPECT_TRUE(pair.pool->flush());
  int found = 0;
  std::thread reader([&] {
    while (found < taken && pair.worker->wait(5s)) ++found;
  });
  while (pair.pool->flush()) std::this_thread::yield();
  reader.join();
  EXPECT_EQ(found, taken);
}

TEST(Wire_AStrangerFillsNoMemory, BeforeItHasShownTheKey) {
  Pair pair("key", "");
  const int room = 4 << 20;
  ::setsockopt(pair.worker->fd(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  const std::string bytes(1 << 20, '\0');
  ASSERT_GT(::send(pair.worker->fd(), bytes.data(), bytes.size(), MSG_DONTWAIT), 160 << 10);
  EXPECT_TRUE(pair.pool->take_in());
  EXPECT_FALSE(take_bytes(pair.pool->fd()).empty());  // the rest is still in the socket
}

TEST(Wire_GarbageIsRefused, NotAllocated) {
  for (const auto& bytes : {std::string("\xff\xff\xff\xff----"), std::string("\x02\0\0\0[]", 6),
                            std::string("\x03\0\0\0{\"a", 7)}) {
    Pair pair;
    ASSERT_EQ(::send(pair.pool->fd(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    EXPECT_THROW(pair.worker->wait(5s), Error);
  }
}

TEST(Wire_TheEndOfTheOtherSideIsNoticed, AfterItsLastMessage) {
  Pair pair;
  pair.worker->send(numbered(1));
  pair.worker.reset();
  EXPECT_TRUE(pair.pool->wait(5s));
  EXPECT_FALSE(pair.pool->take_in());
  EXPECT_FALSE(pair.pool->send(numbered(2)));
}

TEST(Wire_WhatIsSentComesBackEqual, OrIsRefused) {
  const auto info = rank_info_from_json(to_json(RankInfo{.rank = 3,
                                                         .group = 1,
                                                         .group_rank = 1,
                                                         .local_rank = 1,
                                                         .rendezvous_host = "h",
                                                         .rendezvous_port = 5}));
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.group, 1);
  EXPECT_EQ(info.rendezvous_host, "h");
  EXPECT_EQ(info.rendezvous_port, 5);
  EXPECT_THROW(rank_info_from_json(Json::object()), Error);
  const auto times = times_from_json(to_json(BatchTimes{{{"encode", 0.5}}, {1.0, 2.0}}));
  EXPECT_EQ(times.seconds.at("encode"), 0.5);
  EXPECT_EQ(times.step_ms, (std::vector{1.0, 2.0}));
  EXPECT_THROW(stats_from_json({{"rank", "one"}}), Error);
}

}  // namespace
}  // namespace atelier::cluster
