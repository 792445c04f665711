// Groups of processes over Gloo: the same exercises as over threads, and what happens when a peer dies.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "comm/comm.h"
#include "comm/exercises.h"
#include "comm/processes.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using processes::Ranks;

std::unique_ptr<Comm> all(Transport& transport) {
  std::vector<int> ranks(transport.size());
  for (int r = 0; r < transport.size(); ++r) ranks[r] = r;
  return transport.open(ranks, "all");
}

void expect_fine(Ranks& ranks, int size) {
  for (int r = 0; r < size; ++r) {
    const auto outcome = ranks.join(r);
    EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0)
        << "rank " << r << " of " << size << ": status " << outcome.status << ", " << outcome.errors;
  }
}

void expect_peer_error(Ranks& ranks, int rank, const std::string& what) {
  const auto outcome = ranks.join(rank);
  EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 1) << "status " << outcome.status;
  EXPECT_TRUE(outcome.errors.starts_with("peer: ") && outcome.errors.find(what) != std::string::npos)
      << "rank " << rank << ": " << outcome.errors;
}

void every_exercise(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  exercises::every_verb(*transport, at::kCPU);
  exercises::same_bits_everywhere(*transport, at::kCPU);
  exercises::many_groups(*transport, at::kCPU);
  exercises::events(*transport, at::kCPU);
}

class Gloo : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Gloo, testing::Values(1, 2, 3));

TEST_P(Gloo, DoesWhatLocalGroupsDo) {
  Ranks ranks(GetParam(), 20s, every_exercise);
  expect_fine(ranks, GetParam());
}

// Rank 1 leaves first and rank 0, which serves nothing here, last: nobody may take a good-bye for a death.
// Messages as large as these are still on their way when their sender leaves.
void leave_at_different_times(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  const auto pair = all(*transport);
  auto message = at::full({1 << 22}, rendezvous.rank);
  if (rendezvous.rank == 1) return pair->send(message, 0).wait();
  auto work = pair->recv(message, 1);
  std::this_thread::sleep_for(200ms);
  work.wait();
  if (message.ne(1).any().item<bool>()) throw std::runtime_error("wrong numbers");
}
TEST(Gloo, LeavingIsNotDying) {
  Ranks ranks(2, 20s, leave_at_different_times);
  expect_fine(ranks, 2);
}

// Ranks 0 and 1 wait for each other's barrier with rank 2 only indirectly: rank 1 waits for rank 0, which
// waits in another group; only the watch can tell both that rank 2 died.
void one_dies(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  const auto everyone = all(*transport);
  const int first_two[] = {0, 1};
  const auto pair = rendezvous.rank < 2 ? transport->open(first_two, "pair") : nullptr;
  everyone->barrier();
  processes::say("ready");
  auto tensor = at::zeros({1000});
  if (rendezvous.rank == 0) everyone->all_reduce(tensor).wait();
  if (rendezvous.rank == 1) pair->recv(tensor, 0).wait();
  if (rendezvous.rank == 2) std::this_thread::sleep_for(30s);
}
TEST(Gloo, ADeadPeerIsNoticedByEveryoneAtOnce) {
  Ranks ranks(3, 30s, one_dies);
  for (int r = 0; r < 3; ++r) ASSERT_EQ(ranks.line(r), "ready");
  const auto start = Clock::now();
  ranks.send_signal(2, SIGKILL);
  expect_peer_error(ranks, 0, "rank 2 is gone");
  expect_peer_error(ranks, 1, "rank 2 is gone");
  EXPECT_LT(Clock::now() - start, 2s);
}

void one_is_silent(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  const auto everyone = all(*transport);
  everyone->barrier();
  processes::say("ready");
  auto tensor = at::zeros({1000});
  if (rendezvous.rank == 2) std::this_thread::sleep_for(30s);
  everyone->all_reduce(tensor).wait();
}
TEST(Gloo, ASilentPeerIsAnErrorAfterTheTimeout) {
  Ranks ranks(3, 1200ms, one_is_silent);
  for (int r = 0; r < 3; ++r) ASSERT_EQ(ranks.line(r), "ready");
  const auto start = Clock::now();
  expect_peer_error(ranks, 0, "rank 2 is gone or silent");
  expect_peer_error(ranks, 1, "rank 2 is gone or silent");
  EXPECT_GT(Clock::now() - start, 1s);
  EXPECT_LT(Clock::now() - start, 5s);
}

// Rank 0 aborts from another thread while every rank, itself included, is blocked in some verb.
void one_aborts(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  const auto everyone = all(*transport);
  everyone->barrier();
  std::thread killer;
  if (rendezvous.rank == 0) {
    killer = std::thread([&] {
      std::this_thread::sleep_for(100ms);
      transport->abort();
    });
  }
  auto tensor = at::zeros({1000});
  const auto start = Clock::now();
  std::string what;
  try {
    if (rendezvous.rank == 0) everyone->all_reduce(tensor).wait();
    if (rendezvous.rank == 1) everyone->recv(tensor, 2).wait();
    if (rendezvous.rank == 2) everyone->send(tensor, 0).wait();
  } catch (const Error& error) {
    what = error.what();
  }
  if (killer.joinable()) killer.join();
  if (what.find("rank 0 aborted") == std::string::npos) throw std::runtime_error("not woken: " + what);
  if (Clock::now() - start > 2s) throw std::runtime_error("woken too late");
  everyone->barrier();  // poisoned: throws
}
TEST(Gloo, AbortWakesEveryone) {
  Ranks ranks(3, 20s, one_aborts);
  for (int r = 0; r < 3; ++r) expect_peer_error(ranks, r, "rank 0 aborted");
}

void one_group_is_aborted(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  const auto doomed = all(*transport), other = all(*transport);
  auto tensor = at::zeros({1000});
  other->barrier();
  if (rendezvous.rank == 0) doomed->abort();
  try {
    doomed->recv(tensor, 1 - rendezvous.rank).wait();
    throw std::runtime_error("the aborted group still waits");
  } catch (const Error&) {
  }
  auto sum = at::full({3}, 1.0);
  other->all_reduce(sum).wait();
  if (sum[0].item<float>() != 2) throw std::runtime_error("the other group suffered");
}
TEST(Gloo, AbortOfOneGroupLeavesTheOthersAlone) {
  Ranks ranks(2, 20s, one_group_is_aborted);
  expect_fine(ranks, 2);
}

void sizes_differ(const Rendezvous& rendezvous) {
  const auto transport = connect_gloo(rendezvous);
  const auto everyone = all(*transport);
  auto tensor = at::zeros({3 + rendezvous.rank});
  if (rendezvous.rank == 0) everyone->send(tensor, 1).wait();
  if (rendezvous.rank == 1) everyone->recv(tensor, 0).wait();
}
TEST(Gloo, MessagesOfAnotherSizeAreNeverReceived) {
  Ranks ranks(2, 800ms, sizes_differ);
  expect_peer_error(ranks, 0, "");
  expect_peer_error(ranks, 1, "");
}

// A port that was free a moment ago.
int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(bind(socket, reinterpret_cast<sockaddr*>(&address), length), 0);
  getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length);
  close(socket);
  return ntohs(address.sin_port);
}

TEST(Gloo, RanksMeetAtAPort) {
  Ranks ranks(2, 20s, [port = free_port()](const Rendezvous& rendezvous) {
    Rendezvous by_port = rendezvous;
    by_port.file.clear();
    by_port.host = "127.0.0.1";
    by_port.port = port;
    const auto transport = connect_gloo(by_port);
    auto sum = at::full({3}, 1.0);
    all(*transport)->all_reduce(sum).wait();
    if (sum[0].item<float>() != static_cast<float>(rendezvous.size)) throw std::runtime_error("wrong sum");
  });
  expect_fine(ranks, 2);
}

// The names keep their ranks apart, and a second meeting of the same ranks from the first.
TEST(Gloo, RanksMeetAtAServerUnderTheirName) {
  Ranks server(1, 60s, [](const Rendezvous&) {
    const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listening, 16) != 0)
      throw std::runtime_error("no port");
    const RendezvousServer meetings(listening);
    processes::say(str(meetings.port()));
    ::pause();
  });
  const int port = std::stoi(server.line(0));
  for (const char* start : {"0", "1"}) {
    Ranks ranks(4, 20s, [port, start](const Rendezvous& rendezvous) {
      Rendezvous named = rendezvous;
      named.file.clear();
      named.host = "127.0.0.1";
      named.port = port;
      named.name = str("group ", rendezvous.rank / 2, " start ", start);
      named.rank = rendezvous.rank % 2;
      named.size = 2;
      const auto transport = connect_gloo(named);
      auto sum = at::full({3}, static_cast<double>(rendezvous.rank));
      all(*transport)->all_reduce(sum).wait();
      const float expected = rendezvous.rank < 2 ? 1 : 5;
      if (sum[0].item<float>() != expected) throw std::runtime_error("the sum is of other ranks");
    });
    expect_fine(ranks, 4);
  }
}

void one_never_comes(const Rendezvous& rendezvous) {
  if (rendezvous.rank == 0) connect_gloo(rendezvous);
}
TEST(Gloo, ARankThatNeverComesIsAnErrorAfterTheTimeout) {
  Ranks ranks(2, 500ms, one_never_comes);
  expect_peer_error(ranks, 0, "could not be connected");
}

TEST(Gloo, MalformedMeetingsAreRefused) {
  const auto kind_of = [](const std::filesystem::path& file, const std::string& host, int port, int rank) {
    Rendezvous rendezvous;
    rendezvous.file = file;
    rendezvous.host = host;
    rendezvous.port = port;
    rendezvous.rank = rank;
    try {
      connect_gloo(rendezvous);
    } catch (const Error& error) {
      return error.kind();
    }
    return Kind::kItem;
  };
  EXPECT_EQ(kind_of("", "", 0, 0), Kind::kUsage);
  EXPECT_EQ(kind_of("file", "localhost", 1, 0), Kind::kUsage);
  EXPECT_EQ(kind_of("", "localhost", 0, 0), Kind::kUsage);
  EXPECT_EQ(kind_of("file", "", 0, 1), Kind::kUsage);
}

}  // namespace
}  // namespace atelier::comm
