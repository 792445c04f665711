// Keys and values of earlier steps: which slots a patch replaces, what a cold start sees, and
// a planted fault.
#include "parallel/stale_kv.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "nn/sdpa.h"
#include "parallel/toy_for_test.h"

namespace atelier::parallel::testing {
namespace {

// q, k, v of n tokens; what a decorator passes on is what the spy sees.
struct Spy : nn::AttentionOp {
  nn::Sdpa kernel;
  at::Tensor seen;
  const void* place = nullptr;  // of what was seen
  nn::AttentionOutput run(const nn::CallContext& f, const nn::AttentionLayer& s, nn::KvExtent held,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) override {
    seen = kv.clone();
    place = kv.const_data_ptr();
    return kernel.run(f, s, held, q, kv, lse);
  }
};

// Never lets a patch's keys reach the buffer.
struct Frozen : nn::AttentionOp {
  nn::AttentionOp& next;
  std::map<int, at::Tensor> old;
  explicit Frozen(nn::AttentionOp& n) : next(n) {}
  nn::AttentionOutput run(const nn::CallContext& f, const nn::AttentionLayer& s, nn::KvExtent held,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) override {
    if (held.patch && !old.contains(*held.patch)) old[*held.patch] = at::zeros_like(kv);
    return next.run(f, s, held, q, held.patch ? old[*held.patch] : kv, lse);
  }
};

// Runs whole pass and patches in a shuffled order; true if after each patch exactly its slots hold its fresh
// keys and all others what they held before.
bool patches_replace_their_slots(nn::AttentionOp& op, const Spy& spy) {
  nn::CallContext f{.patch = std::nullopt,
                    .streams = {{.patches = {3, 3}, .seq_parts = 2, .pinned_to_first_patch = true},
                                {.patches = {11, 3}, .seq_parts = 2}}};
  const nn::AttentionLayer layer{0, "a", {0, 1}, {0, 1}, {2, 4}};
  const nn::KvExtent held{0, 2, std::nullopt};
  const auto whole = noise({14, 1, 2, 2, 4}, 5);
  op.run(f, layer, held, noise({14, 1, 2, 4}, 6), whole, nn::Lse::kNone);
  at::Tensor expected;
  std::vector<int64_t> begins;
  int64_t begin = 0;
  for (int p = 0; p < 3; ++p) {
    begins.push_back(begin);
    for (int r = 0; r < 2; ++r) begin += f.tokens(layer.streams, r, p);
  }
  bool right = true;
  uint64_t seed = 7;
  for (const int p : {0, 1, 2, 2, 0, 1}) {
    f.patch = p;
    const int64_t n = (p < 2 ? begins[static_cast<size_t>(p) + 1] : 14) - begins[static_cast<size_t>(p)];
    const auto fresh = noise({n, 1, 2, 2, 4}, seed++);
    op.run(f, layer, {0, 2, p}, noise({n, 1, 2, 4}, 6), fresh, nn::Lse::kNone);
    if (expected.defined()) {
      expected.narrow(0, begins[static_cast<size_t>(p)], n).copy_(fresh);
      right = right && spy.seen.equal(expected);
    } else {
      right = right && spy.seen.narrow(0, 0, n).equal(fresh);
      expected = spy.seen.clone();
    }
  }
  return right;
}

TEST(StaleKv, AfterAPatchItsSlotsHoldFreshKeys) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  EXPECT_TRUE(patches_replace_their_slots(stale, spy));
}

TEST(PlantedFault, StaleBufferThatIsNeverUpdatedShows) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  Frozen faulty(stale);
  EXPECT_FALSE(patches_replace_their_slots(faulty, spy));
}

TEST(StaleKv, KeepsBranchesAndHoldersApartAtFixedAddresses) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  const nn::AttentionLayer layer{3, "a", {0}, {0}, {1, 2}};
  nn::CallContext f{.patch = std::nullopt, .streams = {{.patches = {4, 2}, .seq_parts = 2}}};
  const auto run = [&](int branch, int first, std::optional<int> patch, double value) {
    f.branch = branch, f.patch = patch;
    const int64_t n = patch ? 1 : 2;
    const auto kv = at::full({n, 1, 2, 1, 2}, value, at::TensorOptions(at::kDouble));
    stale.run(f, layer, {first, 1, patch}, kv.select(2, 0), kv, nn::Lse::kNone);
    return std::pair(spy.seen[0].flatten()[0].item<double>(), spy.seen[1].flatten()[0].item<double>());
  };
  for (const int branch : {0, 1}) {
    for (const int first : {0, 1}) run(branch, first, std::nullopt, 10 * branch + first);
  }
  EXPECT_EQ(run(1, 1, 0, 5), std::pair(5.0, 11.0));
  EXPECT_EQ(run(1, 0, 1, 6), std::pair(10.0, 6.0));
  EXPECT_EQ(run(0, 1, 1, 7), std::pair(1.0, 7.0));
  EXPECT_EQ(stale.bytes(0), 4 * 2 * 4 * 8);
}

TEST(StaleKv, RefusesAPatchBeforeTheWarmUpOfItsRequest) {
  const c10::InferenceMode guard;
  nn::Sdpa kernel;
  StaleKv stale(kernel);
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {1, 2}};
  nn::CallContext f{.patch = 0, .streams = {{.patches = {2, 2}}}};
  const auto one = noise({1, 1, 2, 1, 2}, 1), two = noise({2, 1, 2, 1, 2}, 1);
  const auto patch = [&] { stale.run(f, layer, {0, 1, 0}, one.select(2, 0), one, nn::Lse::kNone); };
  EXPECT_THROW(patch(), std::logic_error);
  stale.run(f, layer, {0, 1, std::nullopt}, two.select(2, 0), two, nn::Lse::kNone);
  EXPECT_NO_THROW(patch());
  stale.begin_request(0);
  EXPECT_THROW(patch(), std::logic_error);
  stale.ran_whole(0);
  EXPECT_NO_THROW(patch()) << "a recorded graph fills the slots without a call";
}

TEST(StaleKv, EveryKeptShapeHasSlotsOfItsOwn) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {1, 2}};
  const auto run = [&](int buffers, std::optional<int> patch, double value) {
    const nn::CallContext f{.patch = patch, .streams = {{.patches = {2, 2}}}, .buffers = buffers};
    const auto kv = at::full({patch ? 1 : 2, 1, 2, 1, 2}, value, at::TensorOptions(at::kDouble));
    stale.run(f, layer, {0, 1, patch}, kv.select(2, 0), kv, nn::Lse::kNone);
    return std::pair(spy.place, spy.seen[1].flatten()[0].item<double>());
  };
  run(1, std::nullopt, 10), run(2, std::nullopt, 20);
  const auto first = run(1, 0, 1), second = run(2, 0, 2);
  EXPECT_EQ(first.second, 10);
  EXPECT_EQ(second.second, 20);
  stale.begin_request(2);
  EXPECT_EQ(run(1, 0, 3), first) << "where and what it was";
  stale.forget(1);
  EXPECT_EQ(stale.bytes(1), 0);
  EXPECT_GT(stale.bytes(2), 0);
}

TEST(StaleKv, AColdStartAttendsToThePatchesThatHaveCome) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy, Start::kCold);
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {1, 2}};
  nn::CallContext f{.patch = 0, .streams = {{.patches = {6, 3}}}};
  const auto seen_after = [&](int patch, double value) {
    f.patch = patch;
    const auto kv = at::full({2, 1, 2, 1, 2}, value, at::TensorOptions(at::kDouble));
    stale.run(f, layer, {0, 1, patch}, kv.select(2, 0), kv, nn::Lse::kNone);
    std::vector<double> firsts;
    for (int64_t i = 0; i < spy.seen.size(0); i += 2)
      firsts.push_back(spy.seen[i].flatten()[0].item<double>());
    return firsts;
  };
  EXPECT_THROW(seen_after(1, 1), std::logic_error) << "patch 0 comes first";
  for (const double request : {10.0, 20.0}) {
    stale.begin_request(0);
    EXPECT_EQ(seen_after(0, request), (std::vector{request}));
    EXPECT_EQ(seen_after(1, request + 1), (std::vector{request, request + 1}));
    EXPECT_EQ(seen_after(2, request + 2), (std::vector{request, request + 1, request + 2}));
    EXPECT_EQ(seen_after(0, request + 3), (std::vector{request + 3, request + 1, request + 2}));
  }
}

}  // namespace
}  // namespace atelier::parallel::testing
