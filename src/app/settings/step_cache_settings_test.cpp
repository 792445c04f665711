// Step caches by flag, by the switches of xDiT and by the words of --optimize; others are refused by name.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/settings/resolve.h"
#include "base/error.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

Resolved asked_of(const Arguments& arguments, Surface surface) {
  const Parsed parsed = parse_flags({surface, "test", "", {}}, one_spelling(arguments));
  return resolve(surface, parsed.flags, {}, parsed.config);
}

std::string refusal_of(const Arguments& arguments, Surface surface = kT2i) {
  return message_of(Kind::kUsage, [&] { asked_of(arguments, surface); });
}

void expect_said(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words)
    EXPECT_NE(text.find(word), std::string::npos) << "\"" << word << "\" in: " << text;
}

// The texts of a request that a run is asked for.
std::vector<std::string> caches_of(const Arguments& arguments, Surface surface = kRun) {
  return asked_of(arguments, surface).settings.input.texts_of("cache_type");
}

TEST(StepCaches, SwitchesAndWordsOfOtherToolsMeanTheSame) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(caches_of({}), Words());
  EXPECT_EQ(caches_of({"--cache_type", "TeaCache"}), Words{"TeaCache"})
      << "in any case; requests have it lower";
  EXPECT_EQ(caches_of({"--use_fbcache"}), Words{"first_block_cache"});
  EXPECT_EQ(caches_of({"--use_teacache"}), Words{"teacache"});
  EXPECT_EQ(caches_of({"--use_teacache", "--cache_type", "teacache"}), Words{"teacache"});
  EXPECT_EQ(caches_of({"--optimize", "first_block_cache"}, kT2i), Words{"first_block_cache"});
  EXPECT_EQ(asked_of({"--use_fbcache"}, kRun).origin("cache_type").text, "--use_fbcache");
  EXPECT_EQ(asked_of({"--cache_type", "teacache", "--cache_threshold", "0.4"}, kT2i)
                .settings.input.row.request.cache_threshold,
            0.4);
}

TEST(StepCaches, OthersAreRefusedByNameWithThoseThatAreThere) {
  for (const char* word : {"deep_cache", "pab", "faster_cache", "cache_dit", "taylor_seer", "magcache"}) {
    expect_said(refusal_of({"--cache_type", word}),
                {"--cache_type", word, "none, first_block_cache, teacache"});
  }
  for (const char* word : {"deep_cache", "pab_cache", "pab", "faster_cache", "cache_dit", "taylor_seer"}) {
    expect_said(refusal_of({"--optimize", word}), {word, "none, first_block_cache, teacache"});
  }
  expect_said(refusal_of({"--use_fbcache", "--use_teacache"}, kRun), {"--use_fbcache", "--use_teacache"});
  expect_said(refusal_of({"--use_fbcache", "--cache_type", "none"}, kRun), {"--use_fbcache", "--cache_type"});
  expect_said(refusal_of({"--cache_threshold", "-0.1"}), {"--cache_threshold", "-0.1"});
}

}  // namespace
}  // namespace atelier::app
