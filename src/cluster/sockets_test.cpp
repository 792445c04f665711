// Connections that nobody answers.
#include "cluster/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <future>
#include <vector>

#include "base/error.h"
#include "cluster/launch/launch.h"
#include "cluster/testing.h"

namespace atelier::cluster {
namespace {

using namespace std::chrono_literals;

// Takes no more connections: what comes next is dropped, as by a firewall.
class Full {
 public:
  Full() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), any, length), 0);
    EXPECT_EQ(::listen(listener_.get(), 0), 0);
    EXPECT_EQ(::getsockname(listener_.get(), any, &length), 0);
    port_ = ntohs(address.sin_port);
    for (int i = 0; i < 8; ++i) {
      waiting_.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const int connected = ::connect(waiting_.back().get(), any, length);
      EXPECT_TRUE(connected == 0 || errno == EINPROGRESS);
    }
  }
  int port() const { return port_; }

 private:
  Descriptor listener_;
  int port_ = 0;
  std::vector<Descriptor> waiting_;
};

TEST(Sockets_APortThatDoesNotAnswerIsLeft, InTime) {
  const Full full;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_LT(connect_to("127.0.0.1", full.port(), 300ms).get(), 0);
  EXPECT_GT(seconds_since(begin), 0.2);
  EXPECT_LT(seconds_since(begin), 5);
}

TEST(Sockets_AConnectionIsOneThatWaits, HoweverItWasMade) {
  const int port = free_port("127.0.0.1");
  const auto listener = listen_at("127.0.0.1", port);
  const auto ours = connect_to("127.0.0.1", port, 5s);
  ASSERT_GE(ours.get(), 0);
  const auto theirs = accept_from(listener.get());
  ASSERT_GE(theirs.get(), 0);
  for (const int fd : {ours.get(), theirs.get()}) EXPECT_EQ(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_LT(connect_to("127.0.0.1", free_port("127.0.0.1"), 5s).get(), 0);
}

// A peer may have taken its connection back since it was announced.
TEST(Sockets_WhoAcceptsDoesNotWait, WhereNobodyComes) {
  const auto listener = listen_at("127.0.0.1", free_port("127.0.0.1"));
  auto accepted = std::async(std::launch::async, [&] { return accept_from(listener.get()).get(); });
  const bool is_done = accepted.wait_for(5s) == std::future_status::ready;
  EXPECT_TRUE(is_done);
  if (!is_done) ::shutdown(listener.get(), SHUT_RDWR);
  EXPECT_LT(accepted.get(), 0);
}

TEST(Sockets_AnAgentLooksForRankZeroAsLongAsItMay, AlsoUnderANameThatIsNotKnownYet) {
  LauncherEnv env{
      .launcher = "test", .rank = 1, .size = 2, .host = "nobody.invalid", .port = 29000, .key = "key"};
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(run_node_agent(env, 1s), 1);
  EXPECT_GT(seconds_since(begin), 0.9);
}

}  // namespace
}  // namespace atelier::cluster
