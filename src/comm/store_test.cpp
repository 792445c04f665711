// Waiting for what others say at a meeting, and who may come there.
#include "comm/store.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "base/error.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

GroupPlace place_of(int rank) {
  return {{{4, 6}, "pair", 0}, rank};
}

TEST(ExchangeWords, EveryRankHearsAll) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto say = [&](int rank, const std::string& word) {
    return exchange_words(*store, place_of(rank), "names", word, {20s, [] {}});
  };
  auto later = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(100ms);
    return say(1, "b");
  });
  const std::vector<std::string> all{"a", "b"};
  EXPECT_EQ(say(0, "a"), all);
  EXPECT_EQ(later.get(), all);
}

TEST(ExchangeWords, NobodyIsWaitedForOnceTheGroupIsAborted) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto begin = Clock::now();
  const auto check = [&] {
    if (Clock::now() - begin > 100ms) throw Error(Kind::kPeer, "rank 6 aborted");
  };
  EXPECT_THROW(exchange_words(*store, place_of(0), "names", "a", {60s, check}), Error);
  EXPECT_LT(Clock::now() - begin, 5s);
}

TEST(ExchangeWords, ARankThatSaysNothingIsAnErrorAfterTheTimeout) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto begin = Clock::now();
  try {
    exchange_words(*store, place_of(0), "names", "a", {200ms, [] {}});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kPeer);
    EXPECT_NE(std::string(e.what()).find("names/1"), std::string::npos) << e.what();
  }
  EXPECT_GT(Clock::now() - begin, 200ms);
}

sockaddr_in address_of_host(uint32_t host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(host);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

bool is_reached_at(uint32_t host, int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto address = address_of_host(host, port);
  const bool is_reached = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return is_reached;
}

// Ranks of one host need no port that others can reach.
TEST(RendezvousServer, ListensWhereItIsTold) {
  const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto address = address_of_host(INADDR_LOOPBACK, 0);
  ASSERT_EQ(::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listening, 16), 0);
  const RendezvousServer server(listening);
  EXPECT_TRUE(is_reached_at(INADDR_LOOPBACK, server.port()));
  EXPECT_FALSE(is_reached_at(INADDR_LOOPBACK + 1, server.port()));  // another address of this host
  EXPECT_THROW(RendezvousServer(-1), Error);
}

TEST(ListeningHost, IsTheInterfaceThatTheVariableNames) {
  Rendezvous rendezvous;
  rendezvous.host = "192.0.2.1";
  rendezvous.port = 1;
  ::setenv("GLOO_SOCKET_IFNAME", "lo", 1);
  EXPECT_EQ(listening_host(rendezvous), "127.0.0.1");
  ::setenv("GLOO_SOCKET_IFNAME", "no_such_0", 1);
  try {
    listening_host(rendezvous);
    ADD_FAILURE() << "an interface that is not there was taken";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kUsage);
    EXPECT_NE(std::string(e.what()).find("no_such_0"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("lo"), std::string::npos) << e.what();
  }
  ::unsetenv("GLOO_SOCKET_IFNAME");
}

}  // namespace
}  // namespace atelier::comm
