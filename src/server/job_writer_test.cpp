// A disk that is full at the wrong moment.
#include "server/job_writer.h"

#include <gtest/gtest.h>

#include <future>
#include <map>

#include "base/error.h"

namespace atelier::server {
namespace {

// Keeps jobs in memory; fails where it is told to.
class FakeStore : public JobStore {
 public:
  std::string bad_job;   // whose pictures find no room
  bool is_full = false;  // no record does
  std::string refused;   // a record that no transaction may hold
  std::map<std::string, JobRecord> jobs;
  int transactions = 0, lookings = 0;

  void write(std::span<const JobRecord> records) override {
    if (is_full) throw Error(Kind::kCapacity, "the disk is full");
    for (const auto& r : records) {
      if (r.id == refused) throw Error(Kind::kUsage, "the record is refused");
    }
    ++transactions;
    for (const auto& r : records) jobs[r.id] = r;
  }
  std::optional<JobRecord> find(const std::string& id) override {
    return jobs.contains(id) ? std::optional(jobs[id]) : std::nullopt;
  }
  std::optional<JobRecord> find_idempotent(const std::string&, const std::string&) override { return {}; }
  std::vector<JobRecord> list(const JobQuery&) override { return {}; }
  std::vector<JobRecord> take_open() override { return {}; }
  void put_picture(const std::string& job, const std::string&, std::string_view) override {
    if (job == bad_job) throw Error(Kind::kCapacity, "the disk is full");
  }
  std::optional<std::string> picture(const std::string&, const std::string&) override { return {}; }
  void forget_finished(int) override { ++lookings; }
  void remove(const std::string& id) override {
    if (is_full) throw Error(Kind::kCapacity, "the disk is full");
    jobs.erase(id);
  }
  std::string kept(const std::string&, const std::string& otherwise) override { return otherwise; }
};

std::string written(JobWriter& writer, const std::string& id) {
  std::promise<std::string> done;
  writer.write({.id = id, .state = JobState::kDone}, {{id, "0.png", "bytes"}},
               [&](const std::string& error) { done.set_value(error); });
  return done.get_future().get();
}

TEST(JobWriter_AFullDisk, FailsTheJobsItMeetsAndNoOthers) {
  FakeStore store;
  store.bad_job = "b";
  JobWriter writer(store, 10);
  EXPECT_EQ(written(writer, "a"), "");
  EXPECT_EQ(written(writer, "b"), "the disk is full");
  EXPECT_EQ(written(writer, "c"), "");
  EXPECT_TRUE(store.find("a"));
  EXPECT_FALSE(store.find("b"));
  store.is_full = true;
  EXPECT_EQ(written(writer, "d"), "the disk is full");
  store.is_full = false;
  EXPECT_EQ(written(writer, "d"), "");
}

TEST(JobWriter_OldJobs, AreForgottenSoonWhereFewAreKept) {
  for (const auto& [keep, lookings] : {std::pair{0, 6}, {16, 3}, {1000, 0}}) {
    FakeStore store;
    {
      JobWriter writer(store, keep);
      for (const char* id : {"a", "b", "c", "d", "e", "f"}) written(writer, id);
    }
    EXPECT_EQ(store.lookings, lookings) << keep;
  }
}

TEST(JobWriter_ARemoval, ComesAfterWhatIsStillToBeWritten) {
  FakeStore store;
  std::string error = "nobody was told";
  {
    JobWriter writer(store, 10);
    writer.write({.id = "a"}, {}, nullptr);
    writer.write({.id = "b"}, {}, nullptr);
    writer.remove("a", [&](const std::string& why) { error = why; });
  }
  EXPECT_EQ(error, "");
  EXPECT_FALSE(store.find("a"));
  EXPECT_TRUE(store.find("b"));
  store.is_full = true;
  {
    JobWriter writer(store, 10);
    writer.remove("b", [&](const std::string& why) { error = why; });
  }
  EXPECT_EQ(error, "the disk is full");
}

TEST(JobWriter_WhatWaits, IsOneTransactionAndWrittenAtTheEnd) {
  FakeStore store;
  {
    std::promise<void> begun, go_on;  // outlive the writer
    JobWriter writer(store, 10);
    writer.write({.id = "first"}, {}, [&](const std::string&) {
      begun.set_value();
      go_on.get_future().wait();
    });
    begun.get_future().wait();
    for (int i = 0; i < 50; ++i) writer.write({.id = str("job ", i)}, {}, nullptr);
    go_on.set_value();
  }
  EXPECT_EQ(store.jobs.size(), 51u);
  EXPECT_EQ(store.transactions, 2);
}

TEST(JobWriter_ARecordThatIsRefused, FailsItsOwnJobAlone) {
  FakeStore store;
  store.refused = "job 3";
  std::map<std::string, std::string> errors;
  {
    std::promise<void> begun, go_on;  // outlive the writer
    JobWriter writer(store, 10);
    writer.write({.id = "first"}, {}, [&](const std::string&) {
      begun.set_value();
      go_on.get_future().wait();
    });
    begun.get_future().wait();
    for (int i = 0; i < 6; ++i) {
      const std::string id = str("job ", i);
      writer.write({.id = id}, {}, [&errors, id](const std::string& error) { errors[id] = error; });
    }
    go_on.set_value();
  }
  EXPECT_EQ(store.jobs.size(), 6u);
  for (const auto& [id, error] : errors) EXPECT_EQ(error, id == "job 3" ? "the record is refused" : "") << id;
  EXPECT_EQ(errors.size(), 6u);
}

}  // namespace
}  // namespace atelier::server
