// What a number is does not depend on what is computed beside it; the library's operators show that tests can
// fail.
#include "nn/ordered.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "nn/conv.h"
#include "nn/norm.h"
#include "nn/seams.h"

namespace atelier::nn {
namespace {

using at::Tensor;

double distance(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// Whether f of every range of dimension `dim` of x is that range of f of x.
bool is_of_its_own(const std::function<Tensor(const Tensor&)>& f, const Tensor& x, int64_t dim) {
  const auto whole = f(x);
  for (const int64_t count : {1, 2, 3, 5, 7, 16, 33}) {
    for (int64_t begin = 0; begin + count <= x.size(dim); begin += 4) {
      if (!at::equal(f(x.narrow(dim, begin, count)), whole.narrow(dim, begin, count))) return false;
    }
  }
  return true;
}

struct Sample {
  const char* name;
  std::function<Tensor(const Tensor&)> of;  // of ranges of dimension `dim` of x
  Tensor x;
  int64_t dim;
};

std::vector<Sample> samples() {
  const auto w = at::randn({70, 517}), bias = at::randn({70}), rows = at::randn({61, 517});
  const auto k = at::randn({2, 3, 57, 24}), v = at::randn({2, 3, 57, 24}), q = at::randn({2, 3, 45, 24});
  const auto mask = at::randn({2, 1, 1, 57}), kernel = at::randn({20, 12, 3, 3}), odd = at::randn({1, 37});
  return {
      {"linear", [=](const Tensor& x) { return at::linear(x, w, bias); }, rows, 0},
      {"columns", [=](const Tensor& x) { return at::linear(rows, x).t(); }, w, 0},
      {"half", [=](const Tensor& x) { return at::linear(x, w.to(at::kBFloat16)); }, rows.to(at::kBFloat16),
       0},
      {"double", [=](const Tensor& x) { return at::linear(x, w.to(at::kDouble)); }, rows.to(at::kDouble), 0},
      {"bmm", [=](const Tensor& x) { return x.matmul(k.transpose(2, 3)); }, q, 2},
      {"attention", [=](const Tensor& x) { return at::scaled_dot_product_attention(x, k, v); }, q, 2},
      {"masked",
       [=](const Tensor& x) { return at::scaled_dot_product_attention(x, k, v, mask, 0., false, 0.3); }, q,
       2},
      {"convolution",
       [=](const Tensor& x) {
         return at::conv2d(x, kernel, {}, 1, at::IntArrayRef{0, 1});
       },
       at::randn({40, 12, 3, 9}), 0},
      {"video",
       [=](const Tensor& x) {
         return at::conv3d(x, kernel.unsqueeze(2), {}, 1, at::IntArrayRef{0, 0, 1});
       },
       at::randn({40, 12, 2, 3, 5}), 0},
      {"norm", [=](const Tensor& x) { return Tensor(norm(x, {.shift = odd, .scale = odd, .gate = odd})); },
       at::randn({40, 1, 37}), 0},
      {"silu", [](const Tensor& x) { return at::silu(x); }, at::randn({40, 17}), 0},
      {"gelu", [](const Tensor& x) { return at::gelu(x, "tanh"); }, at::randn({40, 17}), 0},
      {"gelu_erf", [](const Tensor& x) { return at::gelu(x); }, at::randn({40, 17}), 0},
      {"cosine", [](const Tensor& x) { return x.cos(); }, 30 * at::randn({40, 17}), 0},
      {"softmax", [](const Tensor& x) { return at::softmax(x, 1); }, at::randn({40, 17}), 0},
      {"mean", [](const Tensor& x) { return x.mean({0}, true); }, at::randn({300, 40}), 1}};
}

TEST(Ordered, NumbersDoNotDependOnTheirNeighbours) {
  std::set<std::string> noted;
  for (const Sample& s : samples()) {
    const auto expected = s.of(s.x);
    const OrderedArithmetic here(&noted);
    EXPECT_TRUE(is_of_its_own(s.of, s.x, s.dim)) << s.name;
    const auto made = s.of(s.x);
    EXPECT_EQ(made.sizes(), expected.sizes()) << s.name;
    EXPECT_EQ(made.scalar_type(), expected.scalar_type()) << s.name;
    EXPECT_LE(distance(made, expected), s.x.scalar_type() == at::kBFloat16 ? 0.3 : 2e-4) << s.name;
    const int threads = at::get_num_threads();
    at::set_num_threads(threads == 1 ? 3 : 1);
    EXPECT_TRUE(at::equal(s.of(s.x), made)) << s.name;
    at::set_num_threads(threads);
  }
  EXPECT_TRUE(noted.empty()) << *noted.begin();
  EXPECT_FALSE(OrderedArithmetic::is_on());
}

TEST(Ordered, NumbersOfTheLibraryDo) {
  bool some = false;
  for (const Sample& s : samples()) some = some || !is_of_its_own(s.of, s.x, s.dim);
  EXPECT_TRUE(some);
}

TEST(Ordered, OperatorsThatNobodyKnowsAreNoted) {
  std::set<std::string> noted;
  const auto x = at::randn({3, 4});
  {
    const OrderedArithmetic here(&noted);
    x.var().item<double>();
    const OrderedArithmetic deaf(nullptr);
    x.tan();
  }
  x.cosh();
  EXPECT_EQ(noted, std::set<std::string>{"var"});
}

TEST(Ordered, SumsAreExactInAnyOrder) {
  const auto terms = at::randn({3, 4001}, at::kDouble) * 1e6;
  const auto whole = exact_sums(terms, nullptr);
  EXPECT_LE(distance(whole, terms.sum(1)), 1e-6);
  EXPECT_TRUE(at::equal(exact_sums(terms.flip(1), nullptr), whole));
  // The other rank holds what this one does not.
  struct Other : Reducer {
    Tensor sums;
    void sum(Tensor& value) override { sums.defined() ? void(value.add_(sums)) : void(sums = value.clone()); }
  } other;
  exact_sums(terms.narrow(1, 0, 17), &other);
  EXPECT_TRUE(at::equal(exact_sums(terms.narrow(1, 17, 3984), &other), whole));
  EXPECT_TRUE(std::isnan(exact_sums(terms * 1e15, nullptr)[0].item<double>()));
  EXPECT_TRUE(std::isnan(exact_sums(terms / 0, nullptr)[0].item<double>()));
}

TEST(Ordered, GroupNormOfRowsIsThatOfThePicture) {
  const auto x = at::randn({2, 12, 9, 7}) * 3 + 1, weight = at::randn({12}), bias = at::randn({12});
  struct Other : Reducer {
    Tensor all;
    void sum(Tensor& value) override { value = all.defined() ? value + all : value; }
  } other;
  struct Keep : Reducer {
    Tensor seen;
    void sum(Tensor& value) override { seen = value.clone(); }
  } keep;
  const OrderedArithmetic here(nullptr);
  const auto whole = GroupNorm(weight, bias, 3, 1e-6, nullptr)(x);
  EXPECT_LE(distance(whole, at::group_norm(x, 3, weight, bias, 1e-6)), 1e-5);
  for (const int64_t rows : {0, 1, 4}) {
    const auto above = x.narrow(2, 0, rows), below = x.narrow(2, rows, 9 - rows);
    GroupNorm(weight, bias, 3, 1e-6, &keep)(above);
    other.all = keep.seen;
    EXPECT_TRUE(at::equal(GroupNorm(weight, bias, 3, 1e-6, &other)(below), whole.narrow(2, rows, 9 - rows)))
        << rows;
  }
}

TEST(Ordered, TakesWhatIsEmpty) {
  const OrderedArithmetic here(nullptr);
  EXPECT_EQ(at::linear(at::zeros({0, 5}), at::zeros({3, 5})).sizes(), at::IntArrayRef({0, 3}));
  EXPECT_TRUE(at::equal(at::zeros({2, 0}).mm(at::zeros({0, 3})), at::zeros({2, 3})));
  EXPECT_EQ(at::scaled_dot_product_attention(at::zeros({1, 2, 0, 4}), at::zeros({1, 2, 5, 4}),
                                             at::zeros({1, 2, 5, 4}))
                .sizes(),
            at::IntArrayRef({1, 2, 0, 4}));
  EXPECT_EQ(at::silu(at::zeros({0})).numel(), 0);
}

}  // namespace
}  // namespace atelier::nn
