// Walks the reference's strings: those in testdata/, and the full set where the goldens folder is at hand.
#include <gtest/gtest.h>

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
    Encoded encoded = tokenizer.encode(line.at("text").get<std::string>(), length);
    encoded.ids.resize(static_cast<size_t>(std::count(encoded.mask.begin(), encoded.mask.end(), 1)));
    return encoded.ids;
  });
}

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
    const Encoded encoded = tokenizer->encode(line.at("text").get<std::string>(), length);
    EXPECT_EQ(encoded.mask, line.at("mask").get<std::vector<int64_t>>());
    return encoded.ids;
  });
  std::cout << name << ": " << plain.lines + padded.lines << " strings, "
            << plain.mismatches + padded.mismatches << " differ\n";
}

INSTANTIATE_TEST_SUITE_P(All, Goldens, testing::Values("clip", "t5", "umt5", "mt5", "bert"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace atelier::text
