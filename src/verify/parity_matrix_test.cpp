// The shipped matrix covers what it must, and a matrix can fail.
#include "verify/parity_matrix.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "pipeline/model_repo.h"
#include "pipeline/testing.h"
#include "plan/parallel_config.h"

namespace atelier::verify {
namespace {

using plan::ParallelConfig;

const Json kMatrix = read_json("tests/parity/matrix.json");

std::vector<ParallelConfig> layouts(const Json& one_case) {
  std::vector<ParallelConfig> all;
  for (const char* kind : {"exact", "stale"}) {
    for (const auto& text : one_case.value(kind, Json::array()))
      all.push_back(plan::parse_strategy(text.get<std::string>()));
  }
  return all;
}
std::vector<ParallelConfig> layouts() {
  std::vector<ParallelConfig> all;
  for (const auto& c : kMatrix.at("cases")) {
    for (const auto& d : layouts(c)) all.push_back(d);
  }
  return all;
}

std::set<std::string> strategies(const ParallelConfig& d) {
  std::set<std::string> used;
  if (d.data > 1) used.insert("data");
  if (d.cfg > 1) used.insert("cfg");
  if (d.pipeline > 1) used.insert("pipefusion");
  if (d.ring > 1) used.insert("ring");
  if (d.kv_gather > 1) used.insert("kv_gather");
  if (d.ulysses > 1) used.insert("ulysses");
  if (d.tensor > 1) used.insert("tensor");
  if (d.parallel_vae == plan::PictureRows::kAlways) used.insert("parallel_vae");
  if (d.shard > 1) used.insert("shard");
  return used;
}

TEST(Matrix, HoldsEveryPairOfStrategies) {
  const std::vector<std::string> all{"data",    "cfg",    "pipefusion",   "ring", "kv_gather",
                                     "ulysses", "tensor", "parallel_vae", "shard"};
  std::set<std::pair<std::string, std::string>> found;
  for (const auto& d : layouts()) {
    const auto used = strategies(d);
    for (const auto& a : used) {
      for (const auto& b : used) found.emplace(a, b);
    }
  }
  for (const auto& a : all) {
    for (const auto& b : all) EXPECT_TRUE(found.contains({a, b})) << a << " with " << b;
  }
}

// The requirements name these: R75 to R81 and the source documents' examples.
TEST(Matrix, HoldsTheNamedLayouts) {
  const auto all = layouts();
  for (const char* named :
       {"ulysses=2, ring=2, data=2", "cfg=2, ulysses=2", "ulysses=4, data=2", "ulysses=4, ring=2, data=2",
        "ulysses=4, pipefusion=2", "ulysses=2, pipefusion=2", "ulysses=8", "ulysses=4", "ring=2", "cfg=2",
        "ring=4", "pipefusion=4", "pipefusion=2", "ulysses=2", "cfg=2, pipefusion=2", "cfg=2, pipefusion=4",
        "cfg=2, pipefusion=2, ring=2", "ulysses=2, ring=2"}) {
    EXPECT_EQ(std::count(all.begin(), all.end(), plan::parse_strategy(named)) > 0, true) << named;
  }
}

// Of every model: alone, and with the two that it stands between or a stage that keeps what it gathers.
TEST(Matrix, GathersKeysOfEveryModel) {
  std::set<std::string> models, gathered;
  for (const auto& c : kMatrix.at("cases")) {
    const auto model = c.at("model").get<std::string>();
    models.insert(model);
    std::set<std::string> with;
    for (const auto& d : layouts(c)) {
      if (d.kv_gather > 1) with.merge(strategies(d));
    }
    if (with.contains("kv_gather") && with.contains("ulysses")) gathered.insert(model);
  }
  EXPECT_EQ(gathered, models);
}

bool is_prime(int64_t n) {
  for (int64_t k = 2; k * k <= n; ++k) {
    if (n % k == 0) return false;
  }
  return n > 1;
}

TEST(Matrix, HoldsUnevenHeadsAndTokens) {
  bool five_of_twelve = false, seven_of_text = false, prime_tokens = false, prime_ranks = false;
  for (const auto& c : kMatrix.at("cases")) {
    const auto& request = c.at("request");
    const auto model = pipeline::ModelRepo::open(c.at("model").get<std::string>());
    const auto heads = model.facts().heads;
    const int64_t tokens =
        request.value("height", int64_t{256}) / 16 * (request.value("width", int64_t{256}) / 16);
    prime_tokens = prime_tokens || is_prime(tokens);
    for (const auto& d : layouts(c)) {
      five_of_twelve = five_of_twelve || (heads == 12 && d.ulysses == 5);
      const bool is_cut = sequence_size(d) > 1;
      seven_of_text = seven_of_text || (request.value("max_sequence_length", 0) == 7 && is_cut);
      prime_ranks = prime_ranks || sequence_size(d) == 7;
    }
  }
  EXPECT_TRUE(five_of_twelve);
  EXPECT_TRUE(seven_of_text);
  EXPECT_TRUE(prime_tokens);
  EXPECT_TRUE(prime_ranks);
}

TEST(Matrix, GoesUpToSixteenRanks) {
  const auto all = layouts();
  EXPECT_TRUE(
      std::any_of(all.begin(), all.end(), [](const ParallelConfig& d) { return world_size(d) == 16; }));
}

Json small_matrix(double tolerance, const std::vector<std::string>& exact,
                  const std::vector<std::string>& stale) {
  return {{"tolerance", tolerance},
          {"cases",
           {{{"model", (pipeline::kGolden / "model").string()},
             {"request",
              {{"prompt", {"a fox"}},
               {"height", 32},
               {"width", 48},
               {"num_inference_steps", 2},
               {"max_sequence_length", 7}}},
             {"exact", exact},
             {"stale", stale}}}}};
}

TEST(Matrix, FailsWhereLatentsDifferOrALayoutIsImpossible) {
  const auto rows = run_matrix(
      small_matrix(1e-4, {"ring=2", "pipefusion=2", "ulysses=5"}, {"pipefusion=2", "pipefusion=2, sync"}),
      ".", {});
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_TRUE(rows[0].passed) << rows[0].problem;
  EXPECT_FALSE(rows[1].passed) << "stale keys are not exact";
  EXPECT_GT(rows[1].max_error, 1e-3);
  EXPECT_EQ(rows[1].problem, "latents differ");
  EXPECT_FALSE(rows[2].passed);
  EXPECT_TRUE(nn::has(rows[2].problem, "4 heads")) << rows[2].problem;
  EXPECT_TRUE(rows[3].passed) << rows[3].problem;
  EXPECT_EQ(rows[3].max_error, 0);
  EXPECT_TRUE(rows[4].passed);
  EXPECT_TRUE(nn::has(line_of(rows[1]), "FAILED")) << line_of(rows[1]);
  EXPECT_TRUE(nn::has(line_of(rows[0]), "ok "));
}

TEST(Matrix, FailsBelowItsTolerance) {
  const auto rows = run_matrix(small_matrix(1e-12, {"ring=2"}, {}), ".", {});
  EXPECT_FALSE(rows.at(0).passed);
}

}  // namespace
}  // namespace atelier::verify
