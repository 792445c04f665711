// Layers that multiply in e4m3: who rounds what, once, and that all homes of weights hold the same bytes.
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <gtest/gtest.h>

#include "nn/builder.h"
#include "nn/streamed_memory.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

constexpr auto kE4m3 = at::kFloat8_e4m3fn;

Modulation modulation_of(int64_t width) {
  return {random({2, width}, at::kFloat, 5), random({2, width}, at::kFloat, 6), {}};
}

at::Tensor bytes(const at::Tensor& rows) {
  return rows.view(at::kByte);
}

bool same(const Activation& a, const Activation& b) {
  return bytes(a.rows()).equal(bytes(b.rows())) && a.scale().equal(b.scale());
}

// Share of bytes that differ.
double other_bytes(const Activation& a, const Activation& b) {
  if (a.rows().sizes() != b.rows().sizes()) return 1;
  return bytes(a.rows()).ne(bytes(b.rows())).to(at::kDouble).mean().item<double>();
}

TEST(E4m3Of, NormIsRoundedOnceAndWrittenOnceForAllWhoTakeIt) {
  const auto x = random({5, 2, 64}, at::kBFloat16), wide = x.to(at::kFloat);
  const auto m = modulation_of(64);
  const Modulation half{m.shift.to(at::kBFloat16), m.scale.to(at::kBFloat16), {}};
  const Activation normed = norm(x, half);
  const auto rows = e4m3_of(std::span(&normed, 1)), again = e4m3_of(std::span(&normed, 1));
  EXPECT_EQ(rows.rows().data_ptr(), again.rows().data_ptr());
  EXPECT_EQ(rows.type(), at::kBFloat16);
  EXPECT_EQ(rows.scale().sizes(), (at::IntArrayRef{5, 2, 1}));
  const at::Tensor exact =
      norm(wide, {half.shift.to(at::kFloat), half.scale.to(at::kFloat), {}});  // not rounded to bfloat16
  EXPECT_LT(other_bytes(rows, quantised(exact, kE4m3)), 1e-3);
  EXPECT_GT(other_bytes(rows, quantised(at::Tensor(norm(x, half)), kE4m3)), 1e-3) << "rounded twice";
  EXPECT_TRUE(at::Tensor(normed).equal(at::Tensor(norm(x, half)))) << "who wants it dense has it dense";
}

TEST(E4m3Of, SegmentsAreOneOperandWithOneScale) {
  const auto x = random({3, 2, 32}, at::kFloat), wide = random({3, 2, 80}, at::kFloat, 2) * 30;
  const Activation two[] = {x, wide};
  EXPECT_TRUE(same(e4m3_of(two), quantised(at::cat({x, wide}, -1), kE4m3)));
  const Activation cut[] = {x.narrow(2, 16, 16), wide};  // a view with gaps
  EXPECT_TRUE(same(e4m3_of(cut), quantised(at::cat({x.narrow(2, 16, 16), wide}, -1), kE4m3)));
  const auto ready = quantised(x, kE4m3);
  EXPECT_EQ(e4m3_of(std::span(&ready, 1)).rows().data_ptr(), ready.rows().data_ptr());
  EXPECT_EQ(e4m3_of(std::vector<Activation>{x.narrow(0, 0, 0), wide.narrow(0, 0, 0)}).sizes(),
            (at::IntArrayRef{0, 2, 112}));
}

struct Mlp {
  at::Tensor w_up = random({96, 32}, at::kFloat, 2), b_up = random({96}, at::kFloat, 3),
             w_down = random({48, 112}, at::kFloat, 4), b_down = random({48}, at::kFloat, 5);
  Linear up{quantised_weight(w_up, kE4m3), b_up, nullptr};
  Linear down{quantised_weight(w_down, kE4m3), b_down, nullptr};
};

// What follows gelu rounds it, once, beside what else it takes.
TEST(E4m3Linear, GeluIsRoundedByTheLayerThatTakesIt) {
  const Mlp mlp;
  const auto x = random({7, 2, 32}, at::kFloat), attended = random({7, 2, 16}, at::kFloat, 6);
  const auto hidden = at::gelu(mlp.up(x), "tanh");
  const auto operand = quantised(at::cat({attended, hidden}, -1), kE4m3);
  const auto want = at::linear(
      operand,
      quantised_weight(mlp.w_down, kE4m3).rows().to(at::kFloat) * quantised_weight(mlp.w_down, kE4m3).scale(),
      mlp.b_down);
  EXPECT_LT(distance(mlp.down({attended, gelu_tanh(mlp.up, x)}), want), 2e-2);
  EXPECT_GT(distance(want, at::linear(at::cat({attended, hidden}, -1), mlp.w_down, mlp.b_down)), 2e-2);
  const Linear dense(mlp.w_down, mlp.b_down, nullptr);
  EXPECT_LT(distance(dense({attended, gelu_tanh(mlp.up, x)}),
                     at::linear(at::cat({attended, hidden}, -1), mlp.w_down, mlp.b_down)),
            1e-5);
}

TEST(E4m3Linear, ActivationsAreRoundedToo) {
  const Mlp mlp;
  const auto x = random({7, 32}, at::kFloat);
  const auto narrow = quantised(x, kE4m3);
  EXPECT_TRUE(mlp.up(x).equal(mlp.up(narrow)));
  EXPECT_LT(distance(mlp.up(x), at::linear(narrow, at::Tensor(quantised(mlp.w_up, kE4m3)), mlp.b_up)), 1e-5);
  EXPECT_TRUE(at::cat(mlp.up.parts(x, 2), -1).equal(at::cat(mlp.up.parts(narrow, 2), -1)));
}

// A block as models write them, and what stands around it.
std::map<std::string, at::Tensor> planted() {
  std::map<std::string, at::Tensor> t;
  for (const int i : {0, 1, 2, 3}) {
    const auto b = "b." + std::to_string(i) + ".";
    t[b + "qkv.weight"] = random({96, 32}, at::kDouble, 10 + i);
    t[b + "qkv.bias"] = random({96}, at::kDouble, 20 + i);
    t[b + "out.weight"] = random({32, 96 + 64}, at::kDouble, 30 + i);
    t[b + "out.bias"] = random({32}, at::kDouble, 40 + i);
    t[b + "odd.weight"] = random({24, 32}, at::kDouble, 50 + i);
    t[b + "odd.bias"] = random({24}, at::kDouble, 60 + i);
  }
  t["in.weight"] = random({32, 16}, at::kDouble, 70);
  t["in.bias"] = random({32}, at::kDouble, 71);
  return t;
}

struct Toy {
  Linear in;
  std::vector<Linear> qkv, out, odd;
  LinearCounts counts;
  Manifest manifest;

  Toy(const weights::WeightStore& store, BlockMemory& memory, Tier tier, const Seams& seams = {},
      c10::Device device = c10::kCPU) {
    const Builder plain(store, seams, memory, at::TensorOptions(at::kBFloat16).device(device));
    const auto b = plain.of_tier(tier);
    in = b.linear("in", 16, 32);
    for (int i = 0; i < 4; ++i) {
      const auto block = b.block(i) / "b" / i;
      qkv.push_back(block.expand("qkv", 32, {Dim{2, 16}, Dim{2, 16}, Dim{2, 16}}));
      out.push_back(block.contract("out", {Dim{6, 16}, Dim{64}}, 32));
      odd.push_back(block.linear("odd", 32, 24));
      block.finish_block(i);
    }
    counts = b.linears();
    manifest = b.manifest();
  }
  at::Tensor run(BlockMemory& memory, const at::Tensor& x) const {
    const int order[] = {0, 1, 2, 3};
    memory.will_run(order);
    auto y = in(x);
    for (const int i : order) {
      memory.before(i);
      const auto k = static_cast<size_t>(i);
      y = y + 0.1 * out[k]({qkv[k](y), at::cat({y, y}, -1)});
      y = y + at::cat({odd[k](y), y.narrow(-1, 0, 8)}, -1);
    }
    return y;
  }
  std::map<std::string, at::ScalarType> types() const {
    std::map<std::string, at::ScalarType> all;
    for (const auto& held : manifest) all[held.name] = held.tensor.scalar_type();
    return all;
  }
};

TEST(Tier, DecidesPerLinearOfABlock) {
  const PlantedStore store(planted());
  Resident memory;
  const Toy fast(store, memory, Tier::kFast), strict(store, memory, Tier::kFastStrict),
      exact(store, memory, Tier::kExact);
  EXPECT_EQ(fast.types().at("b.1.qkv.weight"), kE4m3);
  EXPECT_EQ(fast.types().at("b.1.out.weight"), kE4m3);
  EXPECT_EQ(fast.types().at("b.1.odd.weight"), at::kBFloat16) << "24 is no multiple of 16";
  EXPECT_EQ(fast.types().at("in.weight"), at::kBFloat16) << "in no block";
  EXPECT_EQ(fast.types().at("b.1.qkv.bias"), at::kBFloat16);
  EXPECT_EQ(strict.types().at("b.1.qkv.weight"), kE4m3);
  EXPECT_EQ(strict.types().at("b.1.out.weight"), at::kBFloat16) << "closes two segments";
  for (const auto& [name, type] : exact.types()) EXPECT_EQ(type, at::kBFloat16) << name;
  EXPECT_EQ(fast.counts.e4m3, 8);
  EXPECT_EQ(fast.counts.dense, 4);
  EXPECT_EQ(exact.counts.e4m3, 0);
  EXPECT_TRUE(store.missing.empty());
}

// From the store's own numbers, not from what the model's type makes of them.
TEST(Tier, WeightsAreRoundedOnce) {
  const PlantedStore store(planted());
  Resident memory;
  const Toy fast(store, memory, Tier::kFast);
  for (const auto& held : fast.manifest) {
    if (!held.scale.defined()) continue;
    const auto want = quantised(planted().at(held.name).to(at::kFloat), kE4m3);
    EXPECT_TRUE(bytes(held.tensor).equal(bytes(want.rows()))) << held.name;
    EXPECT_TRUE(held.scale.equal(want.scale())) << held.name;
  }
}

TEST(Tier, RanksRoundTheRowsAndColumnsThatTheyHold) {
  const PlantedStore store(planted());
  Resident memory;
  Seams seams;
  seams.tensor_rank = 1, seams.tensor_size = 2;
  const Toy rank(store, memory, Tier::kFast, seams);
  for (const auto& held : rank.manifest) {
    if (held.name == "b.0.qkv.weight") {
      EXPECT_EQ(held.tensor.sizes(), (at::IntArrayRef{48, 32}));
    }
    if (held.name != "b.0.out.weight") continue;
    const auto whole = planted().at(held.name).to(at::kFloat);
    const auto mine = at::cat({whole.narrow(1, 48, 48), whole.narrow(1, 128, 32)}, 1);
    EXPECT_TRUE(bytes(held.tensor).equal(bytes(quantised(mine, kE4m3).rows())));
  }
}

// A rank without a head, of more ranks than heads.
TEST(Tier, ARankMayHoldNothing) {
  const PlantedStore store(planted());
  Resident memory;
  Seams seams;
  seams.tensor_rank = 6, seams.tensor_size = 7;
  const Toy rank(store, memory, Tier::kFast, seams);
  EXPECT_TRUE(store.missing.empty());
  EXPECT_EQ(rank.qkv[0](random({3, 32}, at::kBFloat16)).sizes(), (at::IntArrayRef{3, 0}));
}

TEST(Tier, EveryHomeOfWeightsHoldsTheSameBytes) {
  const PlantedStore store(planted());
  const auto x = random({3, 16}, at::kBFloat16);
  Resident resident;
  const auto want = Toy(store, resident, Tier::kFast).run(resident, x);
  Parked parked;
  const Toy moving(store, parked, Tier::kFast);
  parked.release();
  EXPECT_EQ(parked.bytes(), 0);
  EXPECT_TRUE(moving.run(parked, x).equal(want));
  BlockSizes sizes, wide;
  const Toy shapes(store, sizes, Tier::kFast, {}, c10::kMeta),
      dense(store, wide, Tier::kExact, {}, c10::kMeta);
  EXPECT_LT(sizes.bytes().at(0), wide.bytes().at(0) * 3 / 4);
  Offloaded streamed(sizes.bytes(), c10::kCPU);
  const Toy coming(store, streamed, Tier::kFast);
  for (int pass = 0; pass < 2; ++pass) EXPECT_TRUE(coming.run(streamed, x).equal(want)) << pass;
}

TEST(Tier, OtherWeightsAreRoundedIntoTheSameMemory) {
  auto changed = planted();
  for (auto& [name, t] : changed) t = t * 3 + 0.5;
  const PlantedStore first(planted()), second(changed);
  Resident memory;
  const auto x = random({3, 16}, at::kBFloat16);
  const Toy model(first, memory, Tier::kFast), other(second, memory, Tier::kFast);
  const auto before = model.run(memory, x);
  for (const auto& held : model.manifest) read(second, held);
  EXPECT_TRUE(model.run(memory, x).equal(other.run(memory, x)));
  for (const auto& held : model.manifest) read(first, held);
  EXPECT_TRUE(model.run(memory, x).equal(before));
}

}  // namespace
}  // namespace atelier::nn
