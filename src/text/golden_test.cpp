// Walks the reference's strings: those in testdata/, and the full set where the goldens folder is at hand.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "text/tokenizer.h"

namespace atelier::text {
namespace {

namespace fs = std::filesystem;

// $ATELIER_GOLDENS, or the shared folder beside the checkout; empty where there is none.
fs::path goldens() {
  const char* named = std::getenv("ATELIER_GOLDENS");
  const fs::path root = named != nullptr ? fs::path(named) : fs::path("../shared/goldens");
  return fs::is_directory(root / "tokenizers") ? root / "tokenizers" : fs::path();
}

struct Tally {
  int lines = 0;
  int mismatches = 0;
};

// Compares every line of a file with `encode(line)`; `key` names the reference where it differs from "ids".
template <class Encode>
Tally compare(const fs::path& file, const std::string& key, Encode&& encode) {
  Tally tally;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line); ++tally.lines) {
    const Json golden = Json::parse(line);
    const auto expected = golden.value(key, golden.at("ids")).get<std::vector<int64_t>>();
    const std::vector<int64_t> found = encode(golden);
    if (found == expected) continue;
    if (++tally.mismatches <= 3) {
      ADD_FAILURE() << file << ": " << golden.at("text") << "\n expected " << Json(expected) << "\n found    "
                    << Json(found);
    }
  }
  EXPECT_GT(tally.lines, 0) << file;
  EXPECT_EQ(tally.mismatches, 0) << file << " of " << tally.lines;
  return tally;
}

// The .jsonl files hold truncated ids without padding.
Tally compare_plain(const fs::path& file, const Tokenizer& tokenizer, int64_t length,
                    const std::string& key = "ids") {
  return compare(file, key, [&](const Json& line) {
    Encoding encoded = tokenizer.encode(line.at("text").get<std::string>(), length);
    encoded.ids.resize(static_cast<size_t>(std::count(encoded.mask.begin(), encoded.mask.end(), 1)));
    return encoded.ids;
  });
}

// A copy of a vocabulary of testdata/ with another folder's settings over it.
fs::path assemble(const std::string& vocabulary, const std::string& settings) {
  fs::path folder = fs::path(testing::TempDir()) / ("atelier_text_" + std::to_string(::getpid()) + settings);
  fs::remove_all(folder);
  for (const std::string& part : {vocabulary, settings}) {
    fs::copy(fs::path("src/text/testdata") / part, folder,
             fs::copy_options::overwrite_existing | fs::copy_options::recursive);
  }
  return folder;
}

struct Sample {
  const char* vocabulary;
  const char* settings;
};

class Samples : public testing::TestWithParam<Sample> {};

TEST_P(Samples, EveryString_HasTheReferenceIds) {
  const fs::path folder = assemble(GetParam().vocabulary, GetParam().settings);
  const auto tokenizer = open_tokenizer(folder);
  compare(folder / "golden.jsonl", "ids",
          [&](const Json& line) { return tokenizer->ids(line.at("text").get<std::string>()); });
  fs::remove_all(folder);
}

// t5: slow; t5_new: slow without the legacy flag; t5_converted: fast from spiece.model; whole: tokenizer.json
// alone; mt5: byte fallback and user-defined pieces; clip_bang: "!" as the padding token.
INSTANTIATE_TEST_SUITE_P(All, Samples,
                         testing::Values(Sample{"clip", "clip"}, Sample{"clip", "clip_bang"},
                                         Sample{"t5", "t5"}, Sample{"t5", "t5_new"},
                                         Sample{"t5", "t5_converted"}, Sample{"mt5", "mt5"},
                                         Sample{"whole", "whole"}, Sample{"bert", "bert"}),
                         [](const auto& each) { return std::string(each.param.settings); });

class Goldens : public testing::TestWithParam<const char*> {};

TEST_P(Goldens, EveryString_HasTheReferenceIds) {
  if (goldens().empty())
    GTEST_SKIP() << "no goldens: set ATELIER_GOLDENS to run all strings of " << GetParam();
  const std::string name = GetParam();
  const auto tokenizer = open_tokenizer(goldens() / "model" / name);
  const Json settings = read_json(goldens() / "golden.json").at("tokenizers").at(name);
  const auto length = settings.at("max_length").get<int64_t>();
  const Tally plain = compare_plain(goldens() / (name + ".jsonl"), *tokenizer, length);
  EXPECT_EQ(tokenizer->pad_id(), settings.at("pad_id").get<int64_t>());
  const Tally padded = compare(goldens() / (name + ".padded.jsonl"), "ids", [&](const Json& line) {
    const Encoding encoded = tokenizer->encode(line.at("text").get<std::string>(), length);
    EXPECT_EQ(encoded.mask, line.at("mask").get<std::vector<int64_t>>());
    return encoded.ids;
  });
  std::cout << name << ": " << plain.lines + padded.lines << " strings, "
            << plain.mismatches + padded.mismatches << " differ\n";
}

// Folders of the fast class without tokenizer.json: what the slow class makes of them.
class SlowT5Goldens : public testing::TestWithParam<const char*> {};

TEST_P(SlowT5Goldens, EveryString_HasTheReferenceIds) {
  const std::string name = GetParam();
  if (goldens().empty())
    GTEST_SKIP() << "no goldens: set ATELIER_GOLDENS to run all strings of slow " << name;
  const fs::path folder =
      fs::path(testing::TempDir()) / ("atelier_text_slow_" + std::to_string(::getpid()) + name);
  fs::remove_all(folder);
  fs::copy(goldens() / "model" / name, folder);
  fs::remove(folder / "tokenizer.json");
  const auto tokenizer = open_tokenizer(folder);
  const auto length =
      read_json(goldens() / "golden.json").at("tokenizers").at(name).at("max_length").get<int64_t>();
  compare_plain(goldens() / (name + ".jsonl"), *tokenizer, length, "ids_slow");
  fs::permissions(folder, fs::perms::owner_all);
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(All, SlowT5Goldens, testing::Values("t5", "umt5"),
                         [](const auto& each) { return std::string(each.param); });

INSTANTIATE_TEST_SUITE_P(All, Goldens, testing::Values("clip", "t5", "umt5", "mt5", "bert"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace atelier::text
