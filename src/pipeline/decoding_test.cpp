// Who decodes: all ranks of a replica, each its rows, where a picture is worth it.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>

#include "pipeline/testing.h"

namespace atelier::pipeline {
namespace {

constexpr int kRows = 14, kCols = 160;  // of latents: seven rows of tokens, which no count of ranks divides

std::vector<request::Request> asked(int rows = kRows) {
  auto batch = request_for({"two paper boats", "a fox"}, {5, 6});
  for (auto& r : batch) {
    r.height = 8 * rows, r.width = 8 * kCols, r.num_inference_steps = 2;
    r.negative_prompt = "rain", r.true_cfg_scale = 3;
  }
  return batch;
}

struct Drawn {
  std::vector<media::Image> pictures;  // of rank 0
  std::set<std::string> used;          // on any rank
};

// late: the rank that comes last to the decoder.
Drawn drawn(const std::string& layout, const std::vector<request::Request>& batch,
            const LoadOptions& load = {}, int late = -1) {
  const auto folder = ModelRepo::open(kGolden / "model");
  auto degrees = plan::parse_strategy(layout);
  degrees.warmup = 2;  // whole steps: exact
  Drawn out;
  std::mutex mutex;
  on_ranks(folder, degrees, load, [&](Pipeline& p, int rank) {
    const auto artifacts = p.generate(batch, {.may_begin = [&](int step) {
                                        if (step == 2 && rank == late)
                                          std::this_thread::sleep_for(std::chrono::milliseconds(300));
                                        return true;
                                      }});
    const std::scoped_lock lock(mutex);
    out.used.merge(p.used());
    EXPECT_EQ(artifacts.empty(), rank % (plan::world_size(degrees) / degrees.data) != 0) << "rank " << rank;
    if (rank != 0) return;
    for (const auto& a : artifacts) out.pictures.push_back(image_of(a));
  });
  return out;
}

void expect_same(const Drawn& drawn, const Drawn& one, const std::string& of) {
  ASSERT_EQ(drawn.pictures.size(), one.pictures.size()) << of;
  for (size_t i = 0; i < one.pictures.size(); ++i) {
    const auto &a = drawn.pictures[i].rgb, &b = one.pictures[i].rgb;
    ASSERT_EQ(a.size(), b.size()) << of;
    size_t others = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      EXPECT_NEAR(a[k], b[k], 1) << of;
      others += a[k] != b[k];
    }
    EXPECT_LE(others, a.size() / 100) << of;
  }
}

std::string rows_over(int ranks) {
  return "picture rows over " + std::to_string(ranks);
}

TEST(Decoding, IsSharedByDefaultUnderEveryLayoutAndDrawsTheSame) {
  const auto one = drawn("", asked());
  ASSERT_EQ(one.pictures.size(), 2u);
  for (const auto& [layout, ranks] :
       std::initializer_list<std::pair<const char*, int>>{{"ulysses=2", 2},
                                                          {"cfg=2", 2},
                                                          {"ring=3", 3},
                                                          {"kv_gather=3", 3},
                                                          {"tensor=2", 2},
                                                          {"pipefusion=2", 2},
                                                          {"data=2, ulysses=2", 2}}) {
    const auto shared = drawn(layout, asked());
    EXPECT_TRUE(shared.used.contains(rows_over(ranks))) << layout;
    expect_same(shared, one, layout);
  }
}

TEST(Decoding, IsLeftToTheFirstRankWhereItIsNotWorthIt) {
  const auto one = drawn("", asked());
  for (const char* layout : {"ulysses=2, parallel_vae=false", "pipefusion=2, parallel_vae=false", "ulysses=4",
                             "data=2"}) {  // four ranks would hold fewer than four rows
    const auto alone = drawn(layout, asked());
    EXPECT_FALSE(alone.used.contains(rows_over(2)) || alone.used.contains(rows_over(4))) << layout;
    expect_same(alone, one, layout);
  }
  EXPECT_FALSE(drawn("ulysses=2", asked(), {.vae_tiling = true}).used.contains(rows_over(2)));
  EXPECT_TRUE(drawn("ulysses=2, parallel_vae", asked(), {.vae_tiling = true}).used.contains(rows_over(2)));
}

// The pictures of one run may be of any size: ranks decide for each anew, all of them the same.
TEST(Decoding, IsDecidedForEachPicture) {
  const auto folder = ModelRepo::open(kGolden / "model");
  const auto small = asked(6), large = asked();
  const auto one_small = drawn("", small), one_large = drawn("", large);
  on_ranks(folder, plan::parse_strategy("pipefusion=2, sync"), {}, [&](Pipeline& p, int rank) {
    for (const auto* batch : {&small, &large, &small}) {
      Drawn here;
      for (const auto& a : p.generate(*batch, {})) here.pictures.push_back(image_of(a));
      if (rank == 0) expect_same(here, batch == &small ? one_small : one_large, "in a row");
    }
    EXPECT_TRUE(p.used().contains(rows_over(2)));
  });
}

TEST(Decoding, WaitsForARankThatComesLate) {
  const auto one = drawn("", asked());
  for (const int late : {0, 1}) expect_same(drawn("ring=2", asked(), {}, late), one, "late");
}

TEST(Decoding, EndsOnAllRanksWhereOneIsInterruptedBefore) {
  const auto folder = ModelRepo::open(kGolden / "model");
  const auto batch = asked();
  on_ranks(folder, plan::parse_strategy("ulysses=2"), {}, [&](Pipeline& p, int rank) {
    EXPECT_NE(message_of(Kind::kInterrupted,
                         [&] { p.generate(batch, {.may_begin = [](int step) { return step < 2; }}); }),
              "no error");
    EXPECT_EQ(p.generate(batch, {}).size(), rank == 0 ? 2u : 0u);
  });
}

// Numbers out of range are found in the whole picture, after every rank has done its part.
TEST(Decoding, OfNumbersOutOfRangeFailsOnTheFirstRankAlone) {
  const auto folder = ModelRepo::open(kGolden / "model");
  const auto batch = asked();
  GivenNoise broken;
  broken.initial = at::full({2, 16, kRows, kCols}, std::numeric_limits<float>::quiet_NaN());
  on_ranks(folder, plan::parse_strategy("ring=2"), {}, [&](Pipeline& p, int rank) {
    const auto draws = [&](const GivenNoise& noise) { return p.generate(batch, {}, noise).size(); };
    if (rank == 0) {
      EXPECT_NE(message_of(Kind::kItem, [&] { draws(broken); }).find("out of range"), std::string::npos);
    } else {
      EXPECT_EQ(draws(broken), 0u);
    }
    EXPECT_EQ(draws({}), rank == 0 ? 2u : 0u) << "the next one is drawn";
  });
}

}  // namespace
}  // namespace atelier::pipeline
