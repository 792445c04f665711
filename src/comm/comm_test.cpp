// Groups of threads: every verb, what is refused, what wakes whom.
#include "comm/comm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "base/error.h"
#include "comm/exercises.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Runs `body` on one thread per rank; what a rank throws is returned, empty where it threw nothing.
std::vector<std::string> on_threads(int size, const LocalOptions& options,
                                    const std::function<void(Transport&)>& body) {
  auto transports = connect_local(size, options);
  std::vector<std::string> errors(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(*transports[r]);
      } catch (const Error& error) {
        errors[r] = str(error.kind() == Kind::kPeer ? "peer: " : "other kind: ", error.what());
      } catch (const std::exception& error) {
        errors[r] = error.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return errors;
}

void expect_fine(int size, const LocalOptions& options, const std::function<void(Transport&)>& body) {
  const auto errors = on_threads(size, options, body);
  for (int r = 0; r < size; ++r) EXPECT_EQ(errors[r], "") << "rank " << r << " of " << size;
}

std::unique_ptr<Comm> all(Transport& transport) {
  std::vector<int> ranks(transport.size());
  for (int r = 0; r < transport.size(); ++r) ranks[r] = r;
  return transport.open(ranks, "all");
}

class Local : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Local, testing::Values(1, 2, 3, 5));

TEST_P(Local, EveryVerbWithEveryDtype) {
  for (const bool rendezvous : {false, true}) {
    expect_fine(GetParam(), {.rendezvous_sends = rendezvous},
                [](Transport& t) { exercises::every_verb(t, at::kCPU); });
  }
}
TEST_P(Local, ManyGroupsAtOnce) {
  expect_fine(GetParam(), {}, [](Transport& t) { exercises::many_groups(t, at::kCPU); });
}
TEST_P(Local, SumsHaveTheSameBitsOnEveryRank) {
  expect_fine(GetParam(), {}, [](Transport& t) { exercises::same_bits_everywhere(t, at::kCPU); });
}
TEST_P(Local, EventsMatchArithmetic) {
  expect_fine(GetParam(), {}, [](Transport& t) { exercises::events(t, at::kCPU); });
}

TEST(Local, CollectivesDoNotWaitForTheirPeersWait) {
  // Rank 1 waits for its first sum only after rank 0 has answered the second: progress must come from calls
  // alone.
  expect_fine(2, {.rendezvous_sends = true}, [](Transport& t) {
    const auto comm = all(t);
    auto a = at::full({3}, 1.0), b = at::full({3}, 2.0);
    auto first = comm->all_reduce(a);
    auto second = comm->all_reduce(b);
    if (comm->rank() == 0) first.wait(), second.wait();
    if (comm->rank() == 1) second.wait(), first.wait();
    EXPECT_EQ(a[0].item<float>() + b[0].item<float>(), 6);
  });
}

TEST(Local, RendezvousSendWaitsForItsReceiver) {
  std::atomic<bool> has_asked = false;
  expect_fine(2, {.rendezvous_sends = true}, [&](Transport& t) {
    const auto comm = all(t);
    auto message = at::full({4}, 7.0);
    if (comm->rank() == 0) {
      comm->send(message, 1).wait();
      EXPECT_TRUE(has_asked);
    } else {
      std::this_thread::sleep_for(30ms);
      has_asked = true;
      comm->recv(message, 0).wait();
    }
  });
}

TEST(Local, BufferedSendsDoNotDeadlockWhereRendezvousSendsDo) {
  const auto both_send_first = [](Transport& t) {
    const auto comm = all(t);
    const auto out = at::full({4}, comm->rank());
    auto in = at::zeros({4}, out.options());
    comm->send(out, 1 - comm->rank()).wait();
    comm->recv(in, 1 - comm->rank()).wait();
    EXPECT_EQ(in[0].item<int64_t>(), 1 - comm->rank());
  };
  expect_fine(2, {}, both_send_first);
  for (const auto& error : on_threads(2, {.rendezvous_sends = true, .timeout = 50ms}, both_send_first)) {
    EXPECT_TRUE(error.starts_with("peer: ")) << error;
  }
}

TEST(Local, BufferedSendMayReuseItsTensor) {
  expect_fine(2, {}, [](Transport& t) {
    const auto comm = all(t);
    auto message = at::full({4}, 7.0);
    if (comm->rank() == 0) {
      comm->send(message, 1).wait();
      message.zero_();
      comm->barrier();
    } else {
      comm->barrier();
      comm->recv(message.zero_(), 0).wait();
      EXPECT_EQ(message[0].item<float>(), 7);
    }
  });
}

// All ranks must hear of a disagreement, and say what it is.
void expect_disagreement(int size, const std::string& what, const std::function<void(Comm&)>& body) {
  const auto errors = on_threads(size, {.timeout = 5s}, [&](Transport& t) { body(*all(t)); });
  for (const auto& error : errors) {
    EXPECT_TRUE(error.starts_with("peer: ") && error.find(what) != std::string::npos) << error;
  }
}

TEST(Local, DisagreementIsAnErrorOnEveryRank) {
  expect_disagreement(3, "passes 4 elements", [](Comm& comm) {
    auto sum = at::zeros({comm.rank() == 2 ? 4 : 3});
    comm.all_reduce(sum).wait();
  });
  expect_disagreement(2, "passes Double", [](Comm& comm) {
    auto sum = at::zeros({3}, comm.rank() == 1 ? at::kDouble : at::kFloat);
    comm.all_reduce(sum).wait();
  });
  expect_disagreement(2, "calls barrier", [](Comm& comm) {
    auto sum = at::zeros({3});
    if (comm.rank() == 0) comm.all_reduce(sum).wait();
    if (comm.rank() == 1) comm.barrier();
  });
  expect_disagreement(2, "sends 2 elements, rank 1 expects 3", [](Comm& comm) {
    const int64_t zero[] = {0, 0}, two[] = {0, 2}, three[] = {3, 0};
    const bool is_first = comm.rank() == 0;
    auto out = at::zeros({is_first ? 0 : 3});
    comm.all_to_all(out, at::zeros({is_first ? 2 : 0}), is_first ? zero : three, is_first ? two : zero)
        .wait();
  });
  expect_disagreement(2, "sends 3 of Float, rank 1 expects 4 of Float", [](Comm& comm) {
    auto message = at::zeros({3 + comm.rank()});
    if (comm.rank() == 0) comm.send(message, 1).wait();
    if (comm.rank() == 1) comm.recv(message, 0).wait();
    comm.barrier();
  });
}

TEST(Local, WrongArgumentsAreRefusedBeforeAnythingIsSent) {
  const auto transports = connect_local(1);
  const auto comm = all(*transports[0]);
  auto out = at::zeros({4}), strided = at::zeros({4, 2}).select(1, 0);
  const int64_t three[] = {3}, negative[] = {-4}, two[] = {2, 2};
  EXPECT_THROW((void)comm->all_gather(out, at::zeros({3}), three), std::logic_error);
  EXPECT_THROW((void)comm->all_gather(out, at::zeros({4}), negative), std::logic_error);
  EXPECT_THROW((void)comm->all_gather(out, at::zeros({4}), two), std::logic_error);
  EXPECT_THROW((void)comm->all_reduce(strided), std::logic_error);
  EXPECT_THROW((void)comm->send(out, 0), std::logic_error);
  EXPECT_THROW((void)comm->recv(out, 1), std::logic_error);
  const int twice[] = {0, 0}, stranger[] = {1};
  EXPECT_THROW((void)transports[0]->open(twice, "x"), std::logic_error);
  EXPECT_THROW((void)transports[0]->open(stranger, "x"), std::logic_error);
}

TEST(Local, AbortWakesEveryoneAndPoisonsTheGroup) {
  const auto errors = on_threads(3, {}, [](Transport& t) {
    const auto comm = all(t);
    if (t.rank() == 0) {
      std::this_thread::sleep_for(30ms);
      t.abort();
    }
    auto tensor = at::zeros({3});
    if (t.rank() == 1) comm->recv(tensor, 2).wait();
    comm->barrier();
  });
  for (const auto& error : errors)
    EXPECT_TRUE(error.starts_with("peer: ") && error.ends_with("aborted")) << error;
}

TEST(Local, AbortOfOneGroupLeavesTheOthersAlone) {
  expect_fine(2, {}, [](Transport& t) {
    const auto doomed = all(t), other = all(t);
    auto tensor = at::zeros({3});
    doomed->check_alive();
    other->barrier();
    if (t.rank() == 0) doomed->abort();
    EXPECT_THROW(doomed->recv(tensor, 1 - t.rank()).wait(), Error);
    EXPECT_THROW(doomed->barrier(), Error);
    EXPECT_THROW(doomed->check_alive(), Error);
    other->check_alive();
    other->barrier();
  });
}

TEST(Local, ARankThatLeavesIsNoticedAtOnce) {
  const auto start = Clock::now();
  const auto errors = on_threads(3, {}, [](Transport& t) {
    const auto comm = all(t);
    if (t.rank() != 2) comm->barrier();
  });
  EXPECT_TRUE(errors[0].starts_with("peer: ") && errors[0].find("rank 2 has left") != std::string::npos)
      << errors[0];
  EXPECT_EQ(errors[2], "");
  EXPECT_LT(Clock::now() - start, 3s);
}

TEST(Work, DroppingAndReplacingWaits) {
  struct Counted : Work::Impl {
    explicit Counted(int& count) : count_(count) {}
    void wait() override { ++count_; }
    int& count_;
  };
  int first = 0, second = 0;
  {
    Work work(std::make_unique<Counted>(first));
    work = Work(std::make_unique<Counted>(second));
    EXPECT_EQ(first, 1);
    EXPECT_EQ(second, 0);
  }
  EXPECT_EQ(second, 1);
  Work waited(std::make_unique<Counted>(first));
  waited.wait();
  waited.wait();
  EXPECT_EQ(first, 2);
}

}  // namespace
}  // namespace atelier::comm
