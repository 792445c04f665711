// The whole policy as tables: no process is started.
#include "cluster/retry_policy.h"

#include <gtest/gtest.h>

namespace atelier::cluster {
namespace {

using Action = RetryPolicy::Action;
using Blame = RetryPolicy::Blame;
using Fate = RetryPolicy::Fate;
using Severity = WorkerFailure::Severity;

TEST(RetryPolicy_OfSeveralFailuresTheOneThatExplainsTheOthersIsTheCause, Table) {
  struct Row {
    std::vector<WorkerFailure> failures;
    int rank;
  };
  const auto failure = [](int rank, Severity severity, bool is_final = false) {
    return WorkerFailure{.rank = rank, .severity = severity, .is_final = is_final};
  };
  const std::vector<Row> rows{
      {{failure(3, Severity::kPeerLost)}, 3},
      {{failure(0, Severity::kPeerLost), failure(1, Severity::kGone)}, 1},
      {{failure(0, Severity::kGone), failure(1, Severity::kPeerLost)}, 0},
      {{failure(0, Severity::kPeerLost), failure(1, Severity::kFailed)}, 1},
      {{failure(0, Severity::kFailed), failure(1, Severity::kGone)}, 1},
      {{failure(0, Severity::kLate), failure(2, Severity::kSilent)}, 2},
      {{failure(0, Severity::kSilent), failure(2, Severity::kFailed)}, 2},
      {{failure(0, Severity::kGone), failure(1, Severity::kPeerLost, true)}, 1},
      {{failure(4, Severity::kGone), failure(5, Severity::kGone)}, 4},  // the first that was heard of
  };
  for (const auto& row : rows) EXPECT_EQ(RetryPolicy::cause_of(row.failures).rank, row.rank);
}

TEST(RetryPolicy_ABatchThatFailed, IsTakenApartTriedAgainOrGivenUp) {
  struct Row {
    const char* what;
    size_t requests;
    std::optional<Kind> kind;
    Attempts attempts;
    int max_retries, memory_tries;
    Fate fate;
  };
  const auto none = std::nullopt;
  const std::vector<Row> rows{
      {"a killed worker", 1, none, {1}, 2, 1, Fate::kRetry},
      {"the last try but one", 1, none, {2}, 2, 1, Fate::kRetry},
      {"the last try", 1, none, {3}, 2, 1, Fate::kGiveUp},
      {"no retries", 1, none, {1}, 0, 1, Fate::kGiveUp},
      {"no retries, a batch: nobody knows which", 4, none, {1}, 0, 1, Fate::kGiveUp},
      {"a lost peer", 1, Kind::kPeer, {1}, 2, 1, Fate::kRetry},
      {"a wrong setting", 1, Kind::kUsage, {1}, 2, 1, Fate::kGiveUp},
      {"wrong files", 2, Kind::kCheckpoint, {1}, 2, 1, Fate::kGiveUp},
      {"a bad prompt, alone", 1, Kind::kItem, {1}, 2, 1, Fate::kGiveUp},
      {"a bad prompt among good ones", 4, Kind::kItem, {1}, 2, 1, Fate::kRetry},
      {"a bad prompt among good ones, no retries", 4, Kind::kItem, {1}, 0, 1, Fate::kRetry},
      {"a batch that does not fit", 4, Kind::kCapacity, {1}, 0, 1, Fate::kRetry},
      {"a picture that does not fit, one rank", 1, Kind::kCapacity, {1}, 9, 1, Fate::kGiveUp},
      {"a picture that does not fit, many ranks", 1, Kind::kCapacity, {1}, 9, 2, Fate::kRetry},
      {"the same after a restart", 1, Kind::kCapacity, {2, 1}, 9, 2, Fate::kGiveUp},
      {"the same without retries", 1, Kind::kCapacity, {1}, 0, 2, Fate::kGiveUp},
  };
  for (auto row : rows) {
    const RetryPolicy policy(1, {.max_retries = row.max_retries, .memory_tries = row.memory_tries});
    EXPECT_EQ(policy.on_batch_failed(row.requests, row.kind, row.attempts), row.fate) << row.what;
  }
}

// What the same failure leads to, time after time.
struct GroupRow {
  const char* what;
  WorkerFailure failure;
  Blame blame;
  int restarts;  // before it is given up
  Kind kind;
  const char* reason;
};

TEST(RetryPolicy_AGroupThatFails, IsRestartedUntilALimit) {
  const WorkerFailure gone{
      .rank = 1, .who = "rank 1", .severity = Severity::kGone, .reason = "was ended by signal 9"};
  const auto loading = [&](Severity severity, std::optional<Kind> kind, const char* reason) {
    return WorkerFailure{
        .rank = 1, .who = "rank 1", .severity = severity, .kind = kind, .reason = reason, .is_loading = true};
  };
  WorkerFailure lost = gone;
  lost.is_final = true;
  const std::vector<GroupRow> rows{
      {"dies at work", gone, Blame::kBatch, 9, Kind::kPeer, "10 times without a picture"},
      {"dies idle", gone, Blame::kNothing, 2, Kind::kPeer, "ended without work, 3 times"},
      {"its host is gone", lost, Blame::kBatch, 0, Kind::kPeer, "start the run again"},
      {"dies while loading", loading(Severity::kGone, {}, "x"), Blame::kNothing, 2, Kind::kPeer,
       "did not load, 3 times"},
      {"falls silent while loading", loading(Severity::kSilent, {}, "x"), Blame::kNothing, 2, Kind::kPeer,
       "did not load, 3 times"},
      {"loads for too long", loading(Severity::kLate, {}, "x"), Blame::kNothing, 1, Kind::kPeer,
       "did not load, 2 times"},
      {"throws while loading", loading(Severity::kFailed, {}, "x"), Blame::kNothing, 1, Kind::kPeer,
       "did not load, 2 times"},
      {"finds no peer", loading(Severity::kPeerLost, Kind::kPeer, "x; try this"), Blame::kNothing, 1,
       Kind::kPeer, "x; try this"},
      {"a broken checkpoint", loading(Severity::kFailed, Kind::kCheckpoint, "a tensor is missing"),
       Blame::kNothing, 0, Kind::kCheckpoint, "a tensor is missing"},
      {"too large", loading(Severity::kFailed, Kind::kCapacity, "does not fit"), Blame::kNothing, 0,
       Kind::kCapacity, "does not fit"},
      {"a wrong setting", loading(Severity::kFailed, Kind::kUsage, "no such folder"), Blame::kNothing, 0,
       Kind::kUsage, "no such folder"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    RetryPolicy policy(1, {.max_retries = 2, .start_advice = ""});
    for (int i = 0; i < row.restarts; ++i) {
      const auto decision = policy.on_group_failed(0, row.failure, row.blame);
      ASSERT_EQ(decision.action, Action::kRestart) << i;
      EXPECT_NE(decision.reason.find("rank 1"), std::string::npos) << decision.reason;
    }
    const auto last = policy.on_group_failed(0, row.failure, row.blame);
    EXPECT_EQ(last.action, Action::kEnd);
    EXPECT_EQ(last.kind, row.kind);
    EXPECT_NE(last.reason.find(row.reason), std::string::npos) << last.reason;
  }
}

// Memory that another process holds for a moment, a disk that is away: the other groups are at work.
TEST(RetryPolicy_AGroupThatCannotLoadAgain, IsGivenUpAloneAfterItsTries) {
  for (const auto kind : {Kind::kCapacity, Kind::kCheckpoint, Kind::kUsage}) {
    RetryPolicy policy(2, {.max_retries = 2});
    policy.on_ready();
    policy.on_artifact(1);
    const WorkerFailure failure{
        .severity = Severity::kFailed, .kind = kind, .reason = "does not fit", .is_loading = true};
    for (int i = 0; i < 2; ++i)
      EXPECT_EQ(policy.on_group_failed(1, failure, Blame::kNothing).action, Action::kRestart) << i;
    EXPECT_EQ(policy.on_group_failed(1, failure, Blame::kNothing).action, Action::kAbandon);
  }
}

TEST(RetryPolicy_AnArtifactEndsTheStreak, OfItsGroupOnly) {
  RetryPolicy policy(2, {.max_retries = 1});
  const WorkerFailure idle{.reason = "left"};
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(policy.on_group_failed(0, idle, Blame::kNothing).action, Action::kRestart);
    policy.on_artifact(0);
  }
  EXPECT_EQ(policy.on_group_failed(1, idle, Blame::kNothing).action, Action::kRestart);
  policy.on_artifact(0);
  EXPECT_EQ(policy.on_group_failed(1, idle, Blame::kNothing).action, Action::kAbandon);
}

TEST(RetryPolicy_TheLastGroupThatIsGivenUp, EndsThePool) {
  RetryPolicy policy(3, {});
  const WorkerFailure lost{.reason = "is gone", .is_final = true};
  EXPECT_EQ(policy.on_group_failed(1, lost, Blame::kBatch).action, Action::kAbandon);
  EXPECT_EQ(policy.on_group_failed(0, lost, Blame::kBatch).action, Action::kAbandon);
  EXPECT_EQ(policy.on_group_failed(2, lost, Blame::kBatch).action, Action::kEnd);
}

TEST(RetryPolicy_AWriteErrorEndsThePool, WhenNoOtherWriteCouldSucceed) {
  EXPECT_TRUE(RetryPolicy::ends_pool(Kind::kCapacity));
  EXPECT_TRUE(RetryPolicy::ends_pool(Kind::kUsage));
  EXPECT_FALSE(RetryPolicy::ends_pool(Kind::kItem));
  EXPECT_FALSE(RetryPolicy::ends_pool(std::nullopt));
}

}  // namespace
}  // namespace atelier::cluster
