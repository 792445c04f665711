// A deterministic run draws the same bits on every layout of the parity matrix that it does not refuse, for
// each picture of a batch; without it, and under what it refuses, some bits are others.
#include "pipeline/deterministic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "pipeline/request_sampler.h"
#include "verify/parity_matrix.h"
#include "verify/requests.h"
#include "verify/thread_ranks.h"

namespace atelier::verify {
namespace {

using testing::HasSubstr;

// The parity matrix without the layouts of more ranks than that.
Json matrix_of(int ranks) {
  Json matrix = read_json("tests/parity/matrix.json");
  matrix["deterministic"] = true;
  for (auto& c : matrix["cases"]) {
    c.erase("stale");
    Json few = Json::array();
    for (const auto& layout : c.at("exact")) {
      if (plan::world_size(plan::parse_strategy(layout.get<std::string>())) <= ranks) few.push_back(layout);
    }
    c["exact"] = few;
  }
  return matrix;
}

Json case_of(const char* model, const std::vector<std::string>& exact) {
  const Json matrix = matrix_of(1);
  for (Json c : matrix.at("cases")) {
    if (c.at("model") != model) continue;
    c["exact"] = exact;
    return c;
  }
  throw std::logic_error("the matrix has no such model");
}

void expect_equal(const Json& matrix) {
  for (const auto& row : run_matrix(matrix, ".", {})) EXPECT_TRUE(row.passed) << line_of(row);
}

TEST(Deterministic, OneAndTwoRanksOfEveryModelDrawTheSameBits) {
  expect_equal(matrix_of(2));
}

TEST(SlowDeterministic, TheWholeMatrixDrawsTheSameBits) {
  expect_equal(matrix_of(16));
}

// Heads of each level of the UNet, rows of a picture and of its latents that fit no number of ranks.
TEST(Deterministic, RowsOfUNetsAndAutoencodersAreUneven) {
  const std::vector<std::string> layouts{"ulysses=3, parallel_vae", "kv_gather=3, parallel_vae",
                                         "data=2, parallel_vae", "cfg=2, ulysses=2, parallel_vae"};
  expect_equal(
      {{"deterministic", true},
       {"cases", {case_of("tests/goldens/sdxl_small/model", layouts), case_of("models/mini", layouts)}}});
}

TEST(Deterministic, WithoutItSomeBitsAreOthers) {
  auto c =
      case_of("models/mini", {"ulysses=2", "ulysses=3", "kv_gather=2", "kv_gather=3", "ring=2", "tensor=2"});
  c["levels"] = 255, c["differing"] = 1.1, c["tolerance"] = 0;
  const auto rows = run_matrix({{"tolerance", 0}, {"cases", {c}}}, ".", {});
  ASSERT_EQ(rows.size(), 6);
  EXPECT_TRUE(std::any_of(rows.begin(), rows.begin() + 4, [](const MatrixRow& row) { return !row.passed; }));
  for (size_t i = 4; i < rows.size(); ++i) EXPECT_FALSE(rows[i].passed) << line_of(rows[i]);
}

// Of everything that a run does every operator is known.
TEST(Deterministic, NoOperatorIsUnknown) {
  const Json matrix = matrix_of(1);
  for (const auto& c : matrix.at("cases")) {
    const auto model = c.at("model").get<std::string>();
    const auto folder = pipeline::ModelRepo::open(model);
    const auto batch = requests_of(c.at("request"), usual_request(folder), model,
                                   {.folder = ".", .usual = pipeline::usual_strength(folder.family())});
    for (const char* layout : {"data=1", "kv_gather=2, parallel_vae"}) {
      std::mutex mutex;
      on_ranks(folder, plan::parse_strategy(layout), {.attention = nn::SdpaBackend::kOrdered},
               [&](pipeline::Pipeline& p, int) {
                 p.generate(batch, {});
                 const std::scoped_lock lock(mutex);
                 for (const auto& name : p.used())
                   EXPECT_THAT(name, Not(HasSubstr("deterministic"))) << model;
               });
    }
  }
}

TEST(Deterministic, WhatCannotBeIsRefusedByName) {
  const auto problem = [](const char* layout) {
    return pipeline::deterministic_problem({.layout = plan::parse_strategy(layout)});
  };
  EXPECT_EQ(problem("data=2, cfg=2, ulysses=2, kv_gather=2, shard=2, parallel_vae"), "");
  EXPECT_THAT(problem("ring=2"), HasSubstr("ring 2"));
  EXPECT_THAT(problem("tensor=3"), HasSubstr("tensor 3"));
  EXPECT_THAT(problem("pipefusion=2, sync"), HasSubstr("pipefusion 2"));
  EXPECT_THAT(pipeline::deterministic_problem({.device = "cuda"}), HasSubstr("--device cpu"));
  EXPECT_THAT(pipeline::deterministic_problem({.vae_tiling = true}), HasSubstr("vae_tiling"));
  EXPECT_THAT(pipeline::deterministic_problem({.attention = "math"}), HasSubstr("attention math"));
  request::Request r;
  EXPECT_EQ(pipeline::deterministic_problem(r), "");
  r.cache_type = "first_block_cache";
  EXPECT_THAT(pipeline::deterministic_problem(r), HasSubstr("cache_type first_block_cache"));
}

}  // namespace
}  // namespace atelier::verify
