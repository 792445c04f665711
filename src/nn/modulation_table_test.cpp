// Tables of modulations against the linears they stand for, whole and in the shares of several ranks.
#include "nn/modulation_table.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "nn/testing.h"

namespace atelier::nn {
namespace {

// This rank's share of three, and the parts of the others computed by their own tables.
struct ThirdOf : ShardedEval {
  int rank = 0;
  std::vector<at::Tensor> parts;
  Range mine(int64_t total) const override { return Partition{total, 3}[rank]; }
  at::Tensor gather(const at::Tensor& part, int64_t total) override {
    parts.push_back(part);
    return parts.size() < 3 ? at::zeros({total, part.size(1), part.size(2)}, part.options()) : at::cat(parts);
  }
};

struct TwoTables {
  at::Tensor w1 = random({4, 3}), b1 = random({4}, at::kDouble, 2), w2 = random({7, 3}, at::kDouble, 3),
             b2 = random({7}, at::kDouble, 4);
  PlantedStore store{{{"a.weight", w1}, {"a.bias", b1}, {"b.weight", w2}, {"b.bias", b2}}};
  at::Tensor condition = random({5, 2, 3}, at::kDouble, 5);
  at::Tensor direct() const {
    return at::cat({at::matmul(condition, w1.t()) + b1, at::matmul(condition, w2.t()) + b2}, -1);
  }
};

TEST(TablesOfAModel, EqualTheLinearsOneByOne) {
  const TwoTables t;
  Resident memory;
  ModulationTables tables(t.store, nullptr, memory, at::TensorOptions(at::kDouble),
                          std::make_shared<Manifest>());
  const ModulationTable a = tables.add("a", 3, 4), b = tables.add("b", 3, 7);
  tables.load();
  const auto all = tables.evaluate(t.condition);
  EXPECT_LT(distance(all, t.direct()), 1e-14);
  State s;
  s.row = all[3];
  EXPECT_TRUE(at::equal(chunks(a, s, 2)[1], all[3].narrow(1, 2, 2)));
  EXPECT_TRUE(at::equal(chunks(b, s, 7)[6], all[3].narrow(1, 10, 1)));
}

TEST(TablesOfAModel, SharesOfSeveralRanksMakeTheSame) {
  const TwoTables t;
  ThirdOf sharded_eval;
  at::Tensor all;
  for (int rank = 0; rank < 3; ++rank) {
    sharded_eval.rank = rank;
    Resident memory;
    ModulationTables tables(t.store, &sharded_eval, memory, at::TensorOptions(at::kDouble),
                            std::make_shared<Manifest>());
    tables.add("a", 3, 4), tables.add("b", 3, 7);
    tables.load();
    all = tables.evaluate(t.condition);
  }
  EXPECT_LT(distance(all, t.direct()), 1e-14);
}

// adaLN-single: one linear for all blocks, numbers of its own for each, and the embedding itself at the end.
TEST(TablesOfAModel, OffsetsAddToASharedLinearAndToTheEmbedding) {
  const TwoTables t;
  const auto one = random({2, 2}, at::kDouble, 6), two = random({2, 2}, at::kDouble, 7),
             last = random({2, 3}, at::kDouble, 8);
  for (const bool shared_by_ranks : {false, true}) {
    ThirdOf thirds;
    at::Tensor all;
    std::vector<ModulationTable> tables;
    for (int rank = 0; rank < (shared_by_ranks ? 3 : 1); ++rank) {
      thirds.rank = rank;
      Resident memory;
      ModulationTables m(t.store, shared_by_ranks ? &thirds : nullptr, memory, at::TensorOptions(at::kDouble),
                         std::make_shared<Manifest>());
      const auto shared = m.add("a", 3, 4);
      tables = {shared, m.add_offset(shared, one), m.add("b", 3, 7), m.add_offset(shared, two),
                m.add_offset_of_embedding(last)};
      m.load();
      all = m.evaluate(t.condition, t.condition * 2);
      EXPECT_EQ(m.total(), all.size(-1));
    }
    const auto a = t.direct().narrow(-1, 0, 4), b = t.direct().narrow(-1, 4, 7);
    const at::Tensor expected[] = {a, a + one.flatten(), b, a + two.flatten(),
                                   (t.condition * 2).repeat({1, 1, 2}) + last.flatten()};
    for (size_t i = 0; i < tables.size(); ++i)
      EXPECT_LT(distance(all.narrow(-1, tables[i].begin, tables[i].size), expected[i]), 1e-14) << i;
  }
}

TEST(TablesOfAModel, ModulationsComeInTheOrderShiftScaleGate) {
  State s;
  s.row = random({2, 20});
  const Modulations six = modulations({2, 18}, s, 3);
  EXPECT_TRUE(at::equal(six.attention.shift, s.row.narrow(1, 2, 3)));
  EXPECT_TRUE(at::equal(six.attention.gate, s.row.narrow(1, 8, 3)));
  EXPECT_TRUE(at::equal(six.mlp.scale, s.row.narrow(1, 14, 3)));
  EXPECT_FALSE(modulations({0, 9}, s, 3).mlp.shift.defined());
}

}  // namespace
}  // namespace atelier::nn
