// Partitions, exit codes, atomic files and JSON with Python's infinities.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/json_problem.h"
#include "base/log.h"
#include "base/parse_json.h"
#include "base/partition.h"

namespace atelier {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "base-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

std::string error_of(Kind kind, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.kind() == kind ? e.what() : std::string("another kind: ") + e.what();
  }
  return "no error";
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(Partition, CoversEverythingWithoutGapsAndDiffersByOneAtMost) {
  for (int64_t total : {0, 1, 2, 7, 12, 97, 4096}) {
    for (int parts = 1; parts <= 17; ++parts) {
      const Partition p{total, parts};
      int64_t next = 0, least = total, most = 0;
      for (int i = 0; i < parts; ++i) {
        EXPECT_EQ(p[i].begin, next);
        next = p[i].end();
        least = std::min(least, p[i].size);
        most = std::max(most, p[i].size);
      }
      EXPECT_EQ(next, total);
      EXPECT_LE(most - least, 1);
      EXPECT_GE(p[0].size, p[parts - 1].size);  // the longer runs come first
    }
  }
}

TEST(Partition, KeepsItsFormulaWhereProductsWouldOverflow) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  const Partition p{huge, 8};
  EXPECT_EQ(p[7].end(), huge);
  EXPECT_EQ(p[0].size, huge / 8 + 1);
}

TEST(Errors, EveryKindHasTheExitCodeOfTheCommandLine) {
  EXPECT_EQ(exit_code(Kind::kUsage), 2);
  EXPECT_EQ(exit_code(Kind::kCheckpoint), 2);
  EXPECT_EQ(exit_code(Kind::kCapacity), 3);
  EXPECT_EQ(exit_code(Kind::kPeer), 1);
  EXPECT_EQ(exit_code(Kind::kItem), 1);
  EXPECT_EQ(exit_code(Kind::kInterrupted), 130);
}

TEST(Errors, JsonOfAnotherForm_IsToldWithoutTheLibrarysFunctions) {
  const auto problem = [](const auto& act) -> std::string {
    try {
      act();
    } catch (const Json::exception& e) {
      return json_problem(e);
    }
    return "";
  };
  const Json file = {{"a", {{"b", 7}}}, {"none", nullptr}, {"list", Json::array()}};
  EXPECT_EQ(problem([&] { file.at("a").at("b").at("c"); }),
            "a.b: an object or a list was expected, found a number");
  EXPECT_EQ(problem([&] { file.at("none").at("c"); }), "none: an object or a list was expected, found null");
  EXPECT_EQ(problem([&] { file.at("a").at(0); }), "a: a list was expected, found an object");
  EXPECT_EQ(problem([&] { return file.at("list").value("c", 1); }),
            "list: an object was expected, found an array");
  EXPECT_EQ(problem([&] { return file["list"]["c"]; }), "list: an object was expected, found an array");
}

TEST_F(Files, JsonThatNestsDeeplyIsRefused) {
  const auto file = folder_ / "deep.json";
  for (const std::string& open : {std::string("["), std::string("{\"a\":")}) {
    std::string text;
    for (int i = 0; i < 100000; ++i) text += open;
    write_file_atomically(file, text);
    EXPECT_NE(error_of(Kind::kCheckpoint, [&] { read_json(file); }).find("nests deeper"), std::string::npos);
    EXPECT_TRUE(parse_json(text).is_discarded());
  }
  EXPECT_EQ(parse_json("[1]"), Json::array({1}));
}

TEST(Errors, EnsureNamesItsCondition) {
  const int one = 1;
  EXPECT_NO_THROW(ENSURE(one == 1));
  try {
    ENSURE(one == 2);
    FAIL() << "nothing was thrown";
  } catch (const std::logic_error& e) {
    EXPECT_TRUE(has(e.what(), "one == 2")) << e.what();
  }
}

TEST_F(Files, AtomicWritesReplaceTheWholeFileAndLeaveNothingBeside) {
  const auto file = folder_ / "deep" / "er" / "a.txt";
  write_file_atomically(file, "a longer first text");
  write_file_atomically(file, std::string_view("b\0c", 3));
  EXPECT_EQ(read_file(file), std::string("b\0c", 3));
  EXPECT_EQ(std::distance(fs::directory_iterator(file.parent_path()), fs::directory_iterator()), 1);
}

TEST_F(Files, ThreadsThatWriteOneFileLeaveAWholeOne) {
  const auto file = folder_ / "shared";
  std::vector<std::jthread> writers;
  for (const char letter : {'a', 'b', 'c', 'd'}) {
    writers.emplace_back([&file, letter] {
      for (int i = 0; i < 40; ++i) EXPECT_NO_THROW(write_file_atomically(file, std::string(100000, letter)));
    });
  }
  for (int i = 0; i < 5; ++i) {
    if (!fs::exists(file)) continue;
    const auto bytes = read_file(file);
    EXPECT_EQ(bytes, std::string(100000, bytes.empty() ? '?' : bytes[0]));
  }
  writers.clear();
  EXPECT_EQ(entries(), 1u) << "a temporary file was left";
}

TEST_F(Files, AFailedWriteKeepsTheOldContentAndNamesTheFile) {
  write_file_atomically(folder_ / "plain", "kept");
  const auto below_a_file =
      error_of(Kind::kUsage, [&] { write_file_atomically(folder_ / "plain" / "x", "y"); });
  EXPECT_TRUE(has(below_a_file, "plain/x")) << below_a_file;
  fs::create_directory(folder_ / "taken");
  const auto onto_a_folder = error_of(Kind::kUsage, [&] { write_file_atomically(folder_ / "taken", "y"); });
  EXPECT_TRUE(has(onto_a_folder, "cannot write")) << onto_a_folder;
  EXPECT_EQ(read_file(folder_ / "plain"), "kept");
  EXPECT_EQ(entries(), 2u) << "a temporary file was left";
}

TEST_F(Files, AnEndlessFileIsNotReadToItsEnd) {
  const auto endless = error_of(Kind::kUsage, [] { read_file("/dev/zero"); });
  EXPECT_TRUE(has(endless, "/dev/zero") && has(endless, "more than 256 MiB")) << endless;
}

TEST_F(Files, ReadingNamesWhatIsMissingOrAFolder) {
  const auto failing = error_of(Kind::kUsage, [] { read_file("/proc/self/mem"); });
  EXPECT_NE(failing.find("/proc/self/mem"), std::string::npos) << failing;
  const auto missing = error_of(Kind::kUsage, [&] { read_file(folder_ / "none"); });
  EXPECT_TRUE(has(missing, "none") && has(missing, "No such file")) << missing;
  const auto a_folder = error_of(Kind::kUsage, [&] { read_file(folder_); });
  EXPECT_TRUE(has(a_folder, "it is a folder")) << a_folder;
}

TEST_F(Files, JsonReadsThePlainWordsThatPythonWrites) {
  write_file_atomically(
      folder_ / "a.json",
      R"({"a": NaN, "b": [Infinity, -Infinity, 1.5], "c": "NaN \" Infinity \\", "NaN": -2})");
  const Json j = read_json(folder_ / "a.json");
  EXPECT_EQ(j["a"], "NaN");
  EXPECT_EQ(j["b"][0], "Infinity");
  EXPECT_EQ(j["b"][1], "-Infinity");
  EXPECT_EQ(j["b"][2], 1.5);
  EXPECT_EQ(j["c"], "NaN \" Infinity \\");
  EXPECT_EQ(j["NaN"], -2);
}

TEST_F(Files, BrokenJsonIsReportedWithTheFile) {
  const char* broken[] = {"", "{", "{\"a\": 1,}", "[1 2]", "\"\xff\"", "{\"a\": nope}", "[1e999]"};
  for (const char* text : broken) {
    write_file_atomically(folder_ / "b.json", text);
    const auto message = error_of(Kind::kCheckpoint, [&] { read_json(folder_ / "b.json"); });
    EXPECT_TRUE(has(message, "b.json is not valid JSON")) << text << " gave: " << message;
  }
}

TEST_F(Files, JsonSurvivesWritingEvenWithBrokenText) {
  const Json value{{"text",
                    "a\xff"
                    "b"},
                   {"n", 3},
                   {"list", {1, 2.5, nullptr}}};
  write_json(folder_ / "c.json", value);
  const Json back = read_json(folder_ / "c.json");
  EXPECT_EQ(back["n"], 3);
  EXPECT_EQ(back["list"], value["list"]);
  EXPECT_EQ(back["text"],
            "a\xef\xbf\xbd"
            "b");
}

TEST_F(Files, LogLinesReachTheFileWithTheirContext) {
  log::set_console(log::Level::kSilent);
  log::add_file(folder_ / "logs" / "run.log");
  log::set_context("rank=3");
  log::debug("only in the file");
  log::warning("twice is fine");
  log::set_context("");
  log::set_console(log::Level::kInfo);
  log::info("flushes");
  const auto text = read_file(folder_ / "logs" / "run.log");
  EXPECT_TRUE(has(text, "debug rank=3 only in the file")) << text;
  EXPECT_TRUE(has(text, "warning rank=3 twice is fine")) << text;
  const auto refused = error_of(Kind::kUsage, [&] { log::add_file(folder_ / "logs" / "run.log" / "below"); });
  EXPECT_TRUE(has(refused, "cannot write the log file")) << refused;
  EXPECT_TRUE(has(refused, ": Not a directory; choose another log_dir")) << refused;
}

// While what lines begin with, and where else they go, changes under them.
TEST_F(Files, LogLinesOfSeveralThreadsArriveWhole) {
  constexpr int kThreads = 4, kLines = 200;
  log::set_console(log::Level::kSilent);
  log::add_file(folder_ / "all.log");
  {
    std::vector<std::jthread> writers;
    for (int t = 0; t < kThreads; ++t) {
      writers.emplace_back([t] {
        for (int i = 0; i < kLines; ++i) log::info(str("<", t, " line ", i, ">"));
      });
    }
    for (int i = 0; i < 5; ++i) {
      log::set_context(str("turn=", i));
      log::add_file(folder_ / str("more", i, ".log"));
    }
  }
  log::set_context("");
  log::warning("flushes");
  log::set_console(log::Level::kInfo);
  std::istringstream lines(read_file(folder_ / "all.log"));
  std::array<int, kThreads> next{};
  for (std::string line; std::getline(lines, line);) {
    const auto begin = line.find('<');
    if (begin == std::string::npos) continue;
    const auto t = static_cast<size_t>(line.at(begin + 1) - '0');
    ASSERT_LT(t, next.size()) << line;
    EXPECT_EQ(line.substr(begin), str("<", t, " line ", next[t]++, ">"));
  }
  for (const int n : next) EXPECT_EQ(n, kLines);
}

}  // namespace
}  // namespace atelier
