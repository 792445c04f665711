#include "server/job_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/scratch.h"

namespace atelier::server {
namespace {

JobRecord record(const std::string& id, JobState state = JobState::kQueued) {
  JobRecord r{.id = id,
              .owner = "alice",
              .kind = "images.generations",
              .format = "png",
              .priority = 3,
              .created = 1.5};
  r.state = state;
  r.notes = {"a note"};
  request::Request request;
  request.prompt = "a \"fox\"\n\xc3\xa9";
  request.seed = 18446744073709551615u;
  request.name = id + "_0.png";
  r.requests = {request};
  r.pictures = {{.name = "0.png", .sha256 = "ab", .bytes = 7, .seconds = 0.25, .seed = 5}};
  return r;
}

TEST(JobStore_ARecord, ComesBackAsItWas) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  const auto written = record("job_1");
  open_sqlite(folder)->write({&written, 1});
  const auto read = open_sqlite(folder)->find("job_1");
  ASSERT_TRUE(read);
  EXPECT_EQ(to_json(*read), to_json(written));
  EXPECT_EQ(read->requests[0].seed, 18446744073709551615u);
}

TEST(JobStore_OpenJobs, ComeInTheirOrder) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  std::vector<JobRecord> all{record("b"), record("a", JobState::kRunning), record("c", JobState::kDone),
                             record("d")};
  store->write(all);
  all[0].state = JobState::kCancelled;
  store->write({&all[0], 1});
  std::string ids;
  for (const auto& r : store->take_open()) ids += r.id;
  EXPECT_EQ(ids, "ad");
}

TEST(JobStore_Lists, AreOneOwnersAndGoOn) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  std::vector<JobRecord> all;
  for (const char* id : {"1", "2", "3", "4", "5"}) all.push_back(record(id, JobState::kDone));
  all[2].owner = "bob";
  store->write(all);
  const auto ids = [&](const JobQuery& query) {
    std::string out;
    for (const auto& r : store->list(query)) out += r.id;
    return out;
  };
  EXPECT_EQ(ids({.owner = "alice", .most = 2}), "54");
  EXPECT_EQ(ids({.owner = "alice", .before = "4", .most = 9}), "21");
  EXPECT_EQ(ids({.owner = "bob"}), "3");
  EXPECT_EQ(ids({}), "54321");
}

TEST(JobStore_OldJobsAreForgotten, WithTheirPictures) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  std::vector<JobRecord> all{record("open"), record("1", JobState::kDone), record("2", JobState::kFailed),
                             record("3", JobState::kDone)};
  store->write(all);
  store->put_picture("1", "0.png", "bytes");
  store->put_picture("3", "0.png", "bytes");
  EXPECT_EQ(store->picture("1", "0.png"), "bytes");
  store->forget_finished(1);
  EXPECT_TRUE(store->find("open"));
  EXPECT_FALSE(store->find("1"));
  EXPECT_FALSE(store->picture("1", "0.png"));
  EXPECT_EQ(store->picture("3", "0.png"), "bytes");
}

TEST(JobStore_Pictures, AreThereAfterTheWriteBehindThem) {
  const Scratch scratch;
  const std::string small("\0PNG\xff", 5), large(200000, 'x');
  {
    const StoreFolder folder(scratch.path());
    const auto store = open_sqlite(folder);
    store->put_picture("1", "0.png", "an older one");
    store->put_picture("1", "0.png", small);
    store->put_picture("1", "1.png", large);
    EXPECT_EQ(store->picture("1", "0.png"), small);
    const auto job = record("1", JobState::kDone);
    store->write({&job, 1});
  }
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  EXPECT_EQ(store->picture("1", "0.png"), small);
  EXPECT_EQ(store->picture("1", "1.png"), large);
  store->remove("1");
  EXPECT_FALSE(store->picture("1", "0.png") || store->picture("1", "1.png"));
}

TEST(JobStore_Pictures, OfJobsThatWereNeverKeptStayInNobodysWay) {
  const Scratch scratch;
  {
    const StoreFolder folder(scratch.path());
    const auto store = open_sqlite(folder);
    store->put_picture("never", "0.png", "small");
    store->put_picture("never", "1.png", std::string(200000, 'x'));
    store->put_picture("1", "0.png", "bytes");
    const auto job = record("1", JobState::kDone);
    store->write({&job, 1});
  }
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  EXPECT_EQ(store->picture("1", "0.png"), "bytes");
  EXPECT_FALSE(store->picture("never", "0.png"));
  EXPECT_FALSE(store->picture("never", "1.png"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "pictures" / "never"));
}

TEST(JobStore_TheLog, IsMovedIntoTheDatabaseWhileJobsGoOn) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  const auto bytes_of = [&](const char* name) -> uintmax_t {
    std::error_code none;
    const auto size = std::filesystem::file_size(scratch.path() / name, none);
    return none ? 0 : size;
  };
  const std::string picture(60 << 10, 'p');  // 15 pages
  constexpr int kWrites = 120, kJobs = 16;
  uintmax_t longest = 0;
  for (int i = 0; i < kWrites; ++i) {
    std::vector<JobRecord> jobs;
    for (int j = 0; j < kJobs; ++j) {
      jobs.push_back(record("job_" + std::to_string(kJobs * i + j)));
      store->put_picture(jobs.back().id, "0.png", picture);
    }
    store->write(jobs);
    longest = std::max(longest, bytes_of("jobs.sqlite-wal"));
  }
  EXPECT_LT(longest, uintmax_t{80} << 20) << "of 110 MiB that were written";
  const uintmax_t most_of_it = picture.size() * kWrites * kJobs - (uintmax_t{8} << 20);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (bytes_of("jobs.sqlite") < most_of_it && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GE(bytes_of("jobs.sqlite"), most_of_it) << "it is in the log alone";
  EXPECT_EQ(store->take_open().size(), size_t{kWrites * kJobs});
}

TEST(JobStore_WhatIsKept, StaysAsItWasFirst) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  EXPECT_EQ(open_sqlite(folder)->kept("key", "first"), "first");
  EXPECT_EQ(open_sqlite(folder)->kept("key", "second"), "first");
  EXPECT_EQ(open_sqlite(folder)->kept("other", "third"), "third");
}

TEST(JobStore_OneIdempotencyKey, IsOneJobOfAnOwner) {
  const Scratch scratch;
  const StoreFolder folder(scratch.path());
  const auto store = open_sqlite(folder);
  auto first = record("1");
  first.idempotency = "k";
  store->write({&first, 1});
  EXPECT_EQ(store->find_idempotent("alice", "k")->id, "1");
  EXPECT_FALSE(store->find_idempotent("bob", "k"));
  auto second = record("2");
  second.idempotency = "k";
  EXPECT_THROW(store->write({&second, 1}), Error);
  EXPECT_FALSE(store->find("2"));
}

TEST(StoreFolder_IsPrivate, AndOneServersAlone) {
  const Scratch scratch;
  const StoreFolder folder(scratch / "data");
  struct stat status {};
  ASSERT_EQ(::stat(folder.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  EXPECT_NE(message_of(Kind::kUsage, [&] { const StoreFolder second(scratch / "data"); })
                .find("used by another server"),
            std::string::npos);
}

TEST(StoreFolder_NetworkFileSystems, AreKnown) {
  EXPECT_EQ(network_file_system(0x6969), "NFS");
  EXPECT_EQ(network_file_system(static_cast<int32_t>(0xFF534D42)),
            "CIFS");                               // some systems give it with a sign
  EXPECT_EQ(network_file_system(0xEF53), "");      // ext4
  EXPECT_EQ(network_file_system(0x01021994), "");  // tmpfs
}

}  // namespace
}  // namespace atelier::server
