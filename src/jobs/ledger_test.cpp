// The ledger under torn tails, garbage and full disks; settings.
#include "jobs/ledger.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <random>
#include <thread>

#include "base/digest.h"
#include "base/files.h"
#include "base/scratch.h"
#include "jobs/folder_claim.h"
#include "jobs/records_for_test.h"
#include "request/settings.h"

namespace atelier::jobs {
namespace {
namespace fs = std::filesystem;

TEST(Sha256, MatchesTheStandardsExamples) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Settings, HashIsStableOverOrderNumbersAndNulls) {
  const Json a = Json::parse(R"({"b": 7, "a": {"y": 1, "x": 2.5}, "n": null})");
  const Json b = Json::parse(R"({"a": {"x": 2.5, "y": 1.0}, "b": 7.0})");
  EXPECT_EQ(request::settings_hash(a), request::settings_hash(b));
  EXPECT_EQ(request::settings_hash(a).size(), 16U);
  EXPECT_NE(request::settings_hash(a), request::settings_hash(Json{{"b", 8}}));
  EXPECT_NE(request::settings_hash(Json{{"b", "7"}}), request::settings_hash(Json{{"b", 7}}));
}

TEST(Settings, DifferencesAreNamed) {
  using Keys = std::vector<std::string>;
  EXPECT_EQ(request::differing_keys({{"a", 1}, {"b", 2}}, {{"a", 1.0}, {"b", 3}, {"c", 4}}),
            (Keys{"b", "c"}));
  EXPECT_EQ(request::differing_keys({{"a", nullptr}}, Json::object()), Keys{});
  EXPECT_EQ(request::differing_keys({{"seed", nullptr}}, {{"seed", 5}}), Keys{});
  EXPECT_EQ(request::differing_keys({{"seed", 4}}, {{"seed", 5}}), Keys{"seed"});
  EXPECT_EQ(request::differing_keys({{"negative_prompt", nullptr}}, {{"negative_prompt", "x"}}),
            Keys{"negative_prompt"});
}

TEST(Settings, AnAdapterIsKnownByItsContents) {
  const auto with = [](Json names, Json digests) { return Json{{"lora", names}, {"lora_digest", digests}}; };
  const Json a = with({"s.safetensors:0.5@transformer_2"}, {"ab"});
  EXPECT_TRUE(request::differing_keys(a, with({"/x/./t:0.5@transformer_2"}, {"ab"})).empty());
  const std::vector<std::string> name{"lora"};
  EXPECT_EQ(request::differing_keys(a, with({"s.safetensors:1@transformer_2"}, {"ab"})), name);
  EXPECT_EQ(request::differing_keys(a, with({"s.safetensors:0.5"}, {"ab"})), name);
  EXPECT_EQ(request::differing_keys(a, with({"s.safetensors:0.5@transformer_2"}, {"cd"})),
            std::vector<std::string>{"lora_digest"});
  EXPECT_EQ(request::differing_keys(a, with({"t:0.5@transformer_2"}, {"cd"})).size(), 2U);
  EXPECT_EQ(request::differing_keys(a, {{"lora", a["lora"]}}), std::vector<std::string>{"lora_digest"});
  // as a picture's file has it
  const auto text = [](const Json& list) { return list.dump(); };
  EXPECT_TRUE(request::differing_keys(with(text({"a:1", "b;c:2"}), text({"x", "y"})),
                                      with(text({"d:1", "e:2"}), text({"x", "y"})))
                  .empty());
}

TEST(Settings, AModelWhoseFilesAreKnownMayHaveAnyName) {
  const Json a{{"model", "a"}, {"vae_hash", "1"}}, b{{"model", "b"}, {"vae_hash", "1"}};
  EXPECT_TRUE(request::differing_keys(a, b).empty());
  EXPECT_EQ(request::settings_hash(a), request::settings_hash(b));
  EXPECT_EQ(request::differing_keys(a, {{"model", "a"}, {"vae_hash", "2"}}),
            std::vector<std::string>{"vae_hash"});
  EXPECT_EQ(request::differing_keys(a, {{"model", "b"}}).size(), 2U);  // an older record
}

TEST(Settings, AnItemsOwnValuesWin) {
  request::Request i = request(1);
  i.num_inference_steps = 8;
  i.seed = 18446744073709551615ULL;
  const Json s = request::look(i, kRun);
  EXPECT_EQ(s["num_inference_steps"], 8);
  EXPECT_EQ(s["guidance_scale"], 3.5);
  EXPECT_EQ(s["seed"], 18446744073709551615ULL);
  EXPECT_FALSE(s.contains("height"));
}

TEST(Ledger, RecordsComeBack) {
  const Scratch dir;
  {
    Ledger ledger(dir / kLedgerName);
    ledger.append(
        done_record(request(0, "line\nend \xFF"), request::look(request(0), kRun), stored("bytes", 1.5)));
    ledger.append(failed_record(request(1), kRun, "NaN"));
    ledger.append(failed_record(request(2), kRun, "NaN"));
    ledger.append(done_record(request(2), kRun, stored("x", 1)));
  }
  const Ledger ledger(dir / kLedgerName);
  EXPECT_EQ(ledger.garbage_lines(), 0);
  const auto r = ledger.find("0.png");
  ASSERT_TRUE(r);
  EXPECT_TRUE(r->is_done);
  EXPECT_EQ(r->seed, 9U);
  EXPECT_EQ(r->sha256, sha256("bytes"));
  EXPECT_EQ(r->bytes, 5U);
  EXPECT_EQ(r->seconds, 1.5);
  EXPECT_EQ(r->settings_hash, request::settings_hash(r->settings));
  EXPECT_EQ(r->time.size(), 20U);
  ASSERT_EQ(ledger.failed().size(), 1U);
  EXPECT_EQ(ledger.failed()[0].name, "1.png");
  EXPECT_EQ(ledger.failed()[0].error, "NaN");
  EXPECT_FALSE(ledger.find("7.png"));
}

// On NFS an flock is a lock of the whole file, which a claim of the folder would block for ever.
TEST(Ledger, LocksBytesAsClaimsDoAndNeverTheWholeFile) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  const int other = ::open((dir / kLedgerName).c_str(), O_RDWR | O_CLOEXEC);
  const auto append = [&] {
    return std::async(std::launch::async, [&] { ledger.append(failed_record(request(0), kRun, "NaN")); });
  };
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  auto beside = append();
  EXPECT_EQ(beside.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  ::flock(other, LOCK_UN);
  beside.get();

  struct flock bytes {};
  bytes.l_type = F_WRLCK, bytes.l_len = 10;  // of another writer
  ASSERT_EQ(::fcntl(other, F_OFD_SETLK, &bytes), 0);
  auto behind = append();
  EXPECT_EQ(behind.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout);
  ::close(other);
  behind.get();
  const FolderClaim claim(dir.path(), 0, 1);
  append().get();
  EXPECT_EQ(ledger.failed().size(), 1U);
}

TEST(Ledger, FindsTheLatestOfManyRecordsOfAnyLength) {
  const Scratch dir;
  constexpr int kMany = 300;
  {
    Ledger ledger(dir / "l");
    for (int i = 0; i < kMany; ++i)
      ledger.append(failed_record(request(i), kRun, std::string(static_cast<size_t>(i) * 7 % 6000, 'x')));
    ledger.append(done_record(request(7), kRun, stored("x", 2)));
  }
  const Ledger again(dir / "l");
  EXPECT_EQ(again.failed().size(), kMany - 1U);
  EXPECT_TRUE(again.find("7.png")->is_done);
  for (const int i : {0, 1, 8, 150, 257, kMany - 1}) {
    const auto record = again.find(str(i, ".png"));
    ASSERT_TRUE(record) << i;
    EXPECT_EQ(record->error.size(), static_cast<size_t>(i) * 7 % 6000) << i;
  }
  EXPECT_FALSE(again.find(str(kMany, ".png")));
}

TEST(Ledger, CutAtAnyByteItStillLoadsAndGrows) {
  const Scratch dir;
  const fs::path file = dir / kLedgerName;
  {
    Ledger ledger(file);
    for (int i = 0; i < 3; ++i) ledger.append(done_record(request(i), kRun, stored("b", 1)));
  }
  const std::string whole = read_file(file);
  for (size_t n = 0; n <= whole.size(); n += n < whole.size() - 8 ? 7 : 1) {
    dir.write(kLedgerName, whole.substr(0, n));
    {
      Ledger ledger(file);
      EXPECT_EQ(ledger.garbage_lines(), 0) << n;
      ledger.append(done_record(request(9), kRun, stored("b", 1)));
    }
    const Ledger again(file);
    EXPECT_EQ(again.garbage_lines(), 0) << n;
    EXPECT_FALSE(again.had_torn_tail()) << n;
    EXPECT_TRUE(again.find("9.png")) << n;
    // a record whose line end alone is missing is whole
    const size_t first = whole.find('\n');
    EXPECT_EQ(again.find("0.png").has_value(), n >= first) << n;
  }
}

TEST(Ledger, GarbageIsCountedAndLeftAlone) {
  const Scratch dir;
  const std::string garbage = "not json\n\n[1]\n{\"name\":5}\n{\"name\":\"x\",\"status\":\"odd\"}\n" +
                              std::string(100000, '[') +
                              "\n{\"name\":\"a.png\",\"status\":\"done\"}\n\xFF\xFE\n";
  const fs::path file = dir.write(kLedgerName, garbage);
  const Ledger ledger(file);
  EXPECT_EQ(ledger.garbage_lines(), 6);
  EXPECT_TRUE(ledger.find("a.png"));
  EXPECT_EQ(read_file(file), garbage);
}

TEST(Ledger, RandomBytesNeverCrash) {
  const Scratch dir;
  std::mt19937 random(3);
  {
    Ledger ledger(dir / "good");
    for (int i = 0; i < 3; ++i) ledger.append(done_record(request(i), kRun, stored("b", 1)));
  }
  const std::string good = read_file(dir / "good");
  for (int round = 0; round < 100; ++round) {
    std::string bytes = good;
    for (size_t k = random() % 20; k > 0; --k) bytes[random() % bytes.size()] = static_cast<char>(random());
    Ledger ledger(dir.write("bad", bytes));
    ledger.append(failed_record(request(8), kRun, "e"));
    EXPECT_TRUE(Ledger(dir / "bad").find("8.png"));
  }
}

TEST(Ledger, ThreadsAndProcessesDoNotMixLines) {
  const Scratch dir;
  const fs::path file = dir / kLedgerName;
  const pid_t child = ::fork();
  {
    Ledger ledger(file);
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 20; ++i)
          ledger.append(done_record(request((child == 0 ? 1000 : 0) + 100 * t + i), kRun, stored("b", 1)));
      });
    }
    for (auto& thread : threads) thread.join();
  }
  if (child == 0) ::_exit(0);
  int status = 0;
  ::waitpid(child, &status, 0);
  const Ledger ledger(file);
  EXPECT_EQ(ledger.garbage_lines(), 0);
  for (const int base : {0, 1000}) {
    for (int t = 0; t < 3; ++t) {
      for (int i = 0; i < 20; ++i) EXPECT_TRUE(ledger.find(str(base + 100 * t + i, ".png")));
    }
  }
}

TEST(Ledger, AFullDiskLeavesNoHalfLine) {
  const Scratch dir;
  if (::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=16k") != 0)
    GTEST_SKIP() << "cannot mount a small disk";
  {
    Ledger ledger(dir / kLedgerName);
    ledger.append(done_record(request(0), kRun, stored("b", 1)));
    const std::string before = read_file(dir / kLedgerName);
    message_of(Kind::kCapacity, [&] {
      ledger.append(done_record(request(1, std::string(40000, 'x')),
                                request::look(request(1, std::string(40000, 'x')), kRun), stored("b", 1)));
    });
    EXPECT_EQ(read_file(dir / kLedgerName), before);
    EXPECT_FALSE(ledger.find("1.png"));
    ledger.append(done_record(request(2), kRun, stored("b", 1)));
    EXPECT_EQ(Ledger(dir / kLedgerName).garbage_lines(), 0);
  }
  ::umount(dir.path().c_str());
}

// Every lock of bytes fails from now on as on a file system that has none.
void lose_locks() {
  sock_filter steps[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLKW, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{std::size(steps), steps};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    ::_exit(77);
}

// What stands behind the last whole line may be another process's, which is writing it.
TEST(Ledger, WithoutLocksNothingIsCutOff) {
  const Scratch dir;
  const fs::path file = dir / kLedgerName;
  { Ledger(file).append(failed_record(request(0), kRun, "NaN")); }
  const std::string torn = read_file(file) + "{\"name\":\"1.png\",";
  dir.write(kLedgerName, torn);
  const pid_t child = ::fork();
  if (child == 0) {
    lose_locks();
    Ledger ledger(file);
    ledger.append(failed_record(request(2), kRun, "NaN"));
    ::_exit(ledger.find("0.png") && ledger.find("2.png") ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "system calls cannot be made to fail here";
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(read_file(file).starts_with(torn + "\n"));
  const Ledger again(file);
  EXPECT_EQ(again.garbage_lines(), 1);
  EXPECT_TRUE(again.find("0.png") && again.find("2.png"));
}

// Its first bytes cannot be read: EIO.
TEST(Ledger, WhatCannotBeReadIsNoEnd) {
  EXPECT_NE(message_of(Kind::kUsage, [&] { Ledger ledger("/proc/self/mem"); }).find("cannot read"),
            std::string::npos);
}

TEST(Ledger, UnusableFilesAreNamed) {
  const Scratch dir;
  EXPECT_NE(message_of(Kind::kUsage, [&] { Ledger ledger(dir.path()); }).find(dir.path().string()),
            std::string::npos);
  message_of(Kind::kUsage, [&] { Ledger ledger(dir / "absent/ledger.jsonl"); });
  message_of(Kind::kUsage, [&] { Ledger ledger("/dev/full"); });
}

}  // namespace
}  // namespace atelier::jobs
