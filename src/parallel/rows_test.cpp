// Pictures cut by rows: halos, moments and the gather against the whole picture.
#include "parallel/rows.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "nn/conv.h"
#include "parallel/tensor.h"
#include "parallel/toy_for_test.h"

namespace atelier::parallel::testing {
namespace {

std::unique_ptr<comm::Comm> everybody(comm::Transport& t) {
  std::vector<int> ranks;
  for (int r = 0; r < t.size(); ++r) ranks.push_back(r);
  return t.open(ranks, "replica");
}

// Uneven rows, rows thinner than the halo, ranks without rows.
const std::vector<std::vector<int64_t>> kCuts{{3, 3},    {3, 2, 2}, {1, 1, 1, 1},
                                              {2, 1, 1}, {2, 0, 0}, {1, 0, 3, 0, 2}};

int64_t total(const std::vector<int64_t>& cut) {
  int64_t n = 0;
  for (const int64_t rows : cut) n += rows;
  return n;
}

// Error of a function of a cut picture against the same function of the whole; each rank gets its rows and
// the row where they begin, and returns [B, C, rows * scale, W].
using OfRows = std::function<at::Tensor(comm::Comm&, const at::Tensor&)>;
double error_of(const std::vector<int64_t>& rows, const at::Tensor& x, const at::Tensor& expected,
                const OfRows& f) {
  double worst = 0;
  std::mutex mutex;
  const auto failure = failure_of(static_cast<int>(rows.size()), [&](comm::Transport& t) {
    const auto group = everybody(t);
    int64_t begin = 0;
    for (int r = 0; r < t.rank(); ++r) begin += rows[static_cast<size_t>(r)];
    const int64_t mine = rows[static_cast<size_t>(t.rank())];
    const auto part = f(*group, x.narrow(2, begin, mine));
    const double scale = static_cast<double>(expected.size(2)) / static_cast<double>(x.size(2));
    const auto at = [&](int64_t row) { return static_cast<int64_t>(static_cast<double>(row) * scale); };
    ASSERT_EQ(part.size(2), at(mine));
    if (mine == 0) return;
    const std::lock_guard lock(mutex);
    worst = std::max(worst, (part - expected.narrow(2, at(begin), at(mine))).abs().max().item<double>());
  });
  EXPECT_EQ(failure, "");
  return failure.empty() ? worst : 1e9;
}

at::Tensor halo_and_rows(comm::Comm& group, const at::Tensor& x, int64_t above, int64_t below) {
  return RowsHalo(group).pad(x, above, below);
}

TEST(RowsHalo, IsWhatThePictureHasThere) {
  const c10::InferenceMode guard;
  for (const auto& rows : kCuts) {
    for (const auto& [above, below] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {0, 1}, {2, 0}, {3, 2}}) {
      const auto x = noise({2, 3, total(rows), 4}, 1);
      const auto edge = [&](int64_t n) { return at::zeros({2, 3, n, 4}, x.options()); };
      const auto tall = at::cat({edge(above), x, edge(below)}, 2);
      const auto failure =
          failure_of(static_cast<int>(rows.size()), [&, above = above, below = below](comm::Transport& t) {
            const auto group = everybody(t);
            int64_t begin = 0;
            for (int r = 0; r < t.rank(); ++r) begin += rows[static_cast<size_t>(r)];
            const int64_t mine = rows[static_cast<size_t>(t.rank())];
            const auto padded = halo_and_rows(*group, x.narrow(2, begin, mine), above, below);
            EXPECT_TRUE(padded.equal(tall.narrow(2, begin, above + mine + below)))
                << t.rank() << " " << above << below;
          });
      EXPECT_EQ(failure, "");
    }
  }
}

TEST(RowsHalo, OfAConstantIsConstantInside) {
  const auto failure = failure_of(3, [](comm::Transport& t) {
    const auto group = everybody(t);
    const auto padded = halo_and_rows(*group, at::full({1, 1, 2, 2}, 7.0), 1, 1);
    EXPECT_EQ(padded.select(2, 0).eq(7).all().item<bool>(), t.rank() > 0);
    EXPECT_EQ(padded.select(2, 3).eq(7).all().item<bool>(), t.rank() < 2);
    EXPECT_TRUE(padded.narrow(2, 1, 2).eq(7).all().item<bool>());
  });
  EXPECT_EQ(failure, "");
}

struct DropsTheRowAbove : nn::RowHalo {
  RowsHalo inner;
  explicit DropsTheRowAbove(comm::Comm& group) : inner(group) {}
  at::Tensor pad(const at::Tensor& x, int64_t above, int64_t below) override {
    auto tall = inner.pad(x, above, below);
    tall.narrow(2, 0, above).zero_();
    return tall;
  }
};

TEST(RowsHalo, ConvolutionsMatchTheWholePicture_AndADroppedRowShows) {
  const c10::InferenceMode guard;
  const auto weight = noise({2, 3, 3, 3}, 2), bias = noise({2}, 3);
  const nn::ConvShape same, half{.stride = 2, .above = 0, .below = 1, .left = 0, .right = 1};
  for (auto rows : kCuts) {
    for (auto& n : rows) n *= 2;
    const auto x = noise({2, 3, total(rows), 4}, 1);
    for (const auto& shape : {same, half}) {
      const auto expected = nn::Conv2d(weight, bias, shape, nullptr)(x);
      const auto honest = [&](comm::Comm& group, const at::Tensor& part) {
        RowsHalo halo(group);
        return nn::Conv2d(weight, bias, shape, &halo)(part);
      };
      EXPECT_LT(error_of(rows, x, expected, honest), 1e-12) << rows.size();
    }
    if (rows[1] == 0) continue;
    const auto faulty = [&](comm::Comm& group, const at::Tensor& part) {
      DropsTheRowAbove halo(group);
      return nn::Conv2d(weight, bias, same, &halo)(part);
    };
    EXPECT_GT(error_of(rows, x, nn::Conv2d(weight, bias, same, nullptr)(x), faulty), 1e-3);
  }
}

TEST(Rows, GroupNormMatchesTheWholePicture) {
  const c10::InferenceMode guard;
  const auto weight = noise({4}, 2), bias = noise({4}, 3);
  for (const auto& rows : kCuts) {
    const auto x = noise({2, 4, total(rows), 3}, 1) + 100;  // a large mean: moments must not cancel
    const auto expected = nn::GroupNorm(weight, bias, 2, 1e-6, nullptr)(x);
    const auto parts = [&](comm::Comm& group, const at::Tensor& part) {
      CommReducer sum(group);
      return nn::GroupNorm(weight, bias, 2, 1e-6, &sum)(part);
    };
    EXPECT_LT(error_of(rows, x, expected, parts), 1e-9);
    const auto enlarged = [](comm::Comm&, const at::Tensor& part) { return nn::upsample2(part); };
    EXPECT_LT(error_of(rows, x, nn::upsample2(x), enlarged), 1e-12);
  }
}

TEST(Rows, GatherMakesThePictureWholeOnEveryRank) {
  const c10::InferenceMode guard;
  for (const int64_t latent_rows : {7, 2}) {
    const auto picture = noise({2, 3, latent_rows * 8, 5}, 4);
    const auto failure = failure_of(3, [&](comm::Transport& t) {
      const auto group = everybody(t);
      const Range r = Partition{latent_rows, 3}[t.rank()];
      EXPECT_TRUE(
          gather_rows(*group, picture.narrow(2, r.begin * 8, r.size * 8), latent_rows).equal(picture));
    });
    EXPECT_EQ(failure, "");
  }
}

}  // namespace
}  // namespace atelier::parallel::testing
