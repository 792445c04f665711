// Whole layouts: the groups that an assembly opens, what stands behind its seams, and what travels.
#include "parallel/parallel_context.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <atomic>
#include <map>
#include <optional>

#include "nn/conv.h"
#include "nn/ordered.h"
#include "parallel/toy_for_test.h"

namespace atelier::parallel::testing {
namespace {

using Body = std::function<void(ParallelContext&, comm::Transport&)>;

std::string failure_of_layout(const plan::ParallelConfig& d, int blocks, const Body& body,
                              nn::SdpaBackend kind = nn::SdpaBackend::kAuto) {
  const auto route = plan::straight(blocks, d.pipeline);
  return failure_of(plan::world_size(d), [&](comm::Transport& t) {
    ParallelContext parallel_context({d, route}, &t, kind);
    body(parallel_context, t);
  });
}

// The sum of the global ranks of a group, as the group finds it.
int64_t sum_of_ranks(comm::Comm* group, int rank) {
  auto sum = at::full({1}, rank, at::TensorOptions(at::kLong));
  if (group) group->all_reduce(sum).wait();
  return sum.item<int64_t>();
}
int64_t sum_of(const std::vector<int>& ranks) {
  int64_t sum = 0;
  for (const int r : ranks) sum += r;
  return sum;
}

TEST(ParallelContext, OpensTheGroupsOfItsLayout) {
  for (const plan::ParallelConfig& d :
       {plan::ParallelConfig{.cfg = 2, .pipeline = 2, .ring = 2, .ulysses = 2},
        plan::ParallelConfig{.data = 2, .cfg = 2, .tensor = 2},
        plan::ParallelConfig{.pipeline = 4, .ulysses = 2}, plan::ParallelConfig{.ring = 3},
        plan::ParallelConfig{.ring = 2, .ulysses = 2, .parallel_vae = plan::PictureRows::kAlways, .shard = 2},
        plan::ParallelConfig{.ulysses = 2, .parallel_vae = plan::PictureRows::kNever},
        plan::ParallelConfig{.pipeline = 2, .kv_gather = 2, .ulysses = 2, .shard = 4}}) {
    const auto failure = failure_of_layout(d, 4, [&](ParallelContext& a, comm::Transport& t) {
      const auto& mesh = a.mesh();
      EXPECT_EQ(sum_of_ranks(a.cfg(), t.rank()), sum_of(mesh.peers({plan::Axis::kCfg})));
      EXPECT_EQ(sum_of_ranks(a.sequence(), t.rank()), sum_of(mesh.peers(plan::kSequence)));
      const plan::AxisSet replica =
          plan::kSequence | plan::AxisSet{plan::Axis::kCfg, plan::Axis::kPipeline, plan::Axis::kTensor};
      EXPECT_EQ(sum_of_ranks(a.replica(), t.rank()), sum_of(mesh.peers(replica)));
      EXPECT_EQ(a.cfg() == nullptr, d.cfg == 1);
      EXPECT_EQ(a.shards() == nullptr, d.shard == 1);
      if (a.shards()) {
        EXPECT_EQ(a.shards()->size(), d.shard);
        EXPECT_EQ(a.shards()->rank(), a.seq_rank() % d.shard);
        EXPECT_NE(a.shards(), a.sequence());
      }
      EXPECT_EQ(a.picture_parts(), d.parallel_vae == plan::PictureRows::kNever ? 1 : mesh.size(replica));
    });
    EXPECT_EQ(failure, "") << plan::to_string(d);
  }
}

TEST(ParallelContext, HopsCarryMessagesAroundTheStages) {
  const plan::ParallelConfig d{.pipeline = 3, .ulysses = 2};
  const auto route = plan::straight(3, 3);
  const auto failure = failure_of_layout(d, 3, [&](ParallelContext& a, comm::Transport& t) {
    const int me = a.mesh().index(plan::Axis::kPipeline), next = (me + 1) % 3, before = (me + 2) % 3;
    auto out = at::full({2}, t.rank(), at::TensorOptions(at::kLong)),
         in = at::zeros({2}, at::TensorOptions(at::kLong));
    auto sent = a.hop({me, next})->send(out, 1);
    a.hop({before, me})->recv(in, 0).wait();
    EXPECT_EQ(in[0].item<int64_t>(), a.mesh().neighbour(plan::Axis::kPipeline, before));
    EXPECT_EQ(a.hop({next, before}), nullptr);
    EXPECT_EQ(a.hop({next, me}), nullptr);
  });
  EXPECT_EQ(failure, "");
}

at::Tensor alone(const Toy& toy) {
  const c10::InferenceMode guard;
  ParallelContext one({}, nullptr, nn::SdpaBackend::kAuto);
  auto whole = at::zeros_like(toy.input(1));
  run_toy(toy, one.denoiser(), 1, 0, whole);
  return whole;
}

TEST(ParallelContext, ARankHearsThatOneOfItsGroupsIsBroken) {
  const auto failure = failure_of_layout(plan::parse_strategy("ulysses=2, data=2"), 2,
                                         [](ParallelContext& a, comm::Transport&) {
                                           a.check_alive();
                                           a.sequence()->barrier();
                                           if (a.mesh().index(plan::Axis::kData) == 1)
                                             return;  // its groups are its own
                                           if (a.seq_rank() == 0) a.sequence()->abort();
                                           EXPECT_THROW(a.sequence()->barrier(), Error);
                                           EXPECT_THROW(a.check_alive(), Error);
                                         });
  EXPECT_EQ(failure, "");
}

struct Traffic {
  std::map<std::string, int64_t> calls, bytes;  // by verb and group, of all ranks
  std::set<std::string> used;
  double difference = 1e9;
};

Traffic run(const Toy& toy, const plan::ParallelConfig& d) {
  const c10::InferenceMode guard;
  Traffic all;
  std::mutex mutex;
  const auto expected = alone(toy);
  auto whole = at::zeros_like(expected);
  const auto failure = failure_of_layout(d, toy.blocks, [&](ParallelContext& a, comm::Transport& t) {
    t.observe([&](const comm::Event& e) {
      const std::lock_guard lock(mutex);
      const auto key = str(e.verb, " ", e.group);
      ++all.calls[key];
      all.bytes[key] += e.bytes_sent;
    });
    auto mine = at::zeros_like(expected);
    run_toy(toy, a.denoiser(), a.seq_parts(), a.seq_rank(), mine);
    t.observe({});
    const std::lock_guard lock(mutex);
    if (a.mesh().index(plan::Axis::kTensor) == 0) whole.add_(mine);
    all.used = a.used();
  });
  EXPECT_EQ(failure, "");
  if (failure.empty()) all.difference = difference(whole, expected);
  return all;
}

TEST(ParallelContext, UlyssesMakesOneExchangeInAndOneOutPerAttention) {
  const Toy toy{.tokens = {5, 8}, .heads = 3, .blocks = 2, .steps = 3};
  // Rank 0 holds 3 + 4 tokens and heads 0, 1; rank 1 holds 2 + 4 tokens and head 2. In: q, k and v of the
  // other's heads; out: my heads of the other's tokens.
  const int64_t number = 8 * 2 /*batch*/ * 4 /*width*/;
  const int64_t in = number * 3 * (7 * 1 + 6 * 2), out = number * (6 * 2 + 7 * 1);
  for (const bool collective : {false, true}) {
    const auto t = run(toy, {.ulysses = 2, .collective = collective});
    const std::string verb = collective ? "all_to_all ulysses" : "stores ulysses";
    EXPECT_LT(t.difference, 1e-12);
    EXPECT_EQ(t.calls.size(), 1u);
    EXPECT_EQ(t.calls.at(verb), 2 /*ranks*/ * 2 /*in, out*/ * 2 /*blocks*/ * 3 /*steps*/);
    EXPECT_EQ(t.bytes.at(verb), (in + out) * 2 * 3);
    EXPECT_TRUE(t.used.contains(collective ? "ulysses over 2" : "ulysses over 2 by stores"));
  }
}

TEST(ParallelContext, RingSendsEveryBlockToEveryOtherRankOnce) {
  const Toy toy{.tokens = {5, 8}, .heads = 3, .blocks = 2, .steps = 2};
  const auto t = run(toy, {.ring = 3});
  EXPECT_LT(t.difference, 1e-12);
  EXPECT_EQ(t.calls.size(), 1u);
  EXPECT_EQ(t.calls.at("send_recv ring"), 3 * 2 * 2 * 2);
  EXPECT_EQ(t.bytes.at("send_recv ring"), 8 * 2 * 4 * 2 * 3 * (5 + 8) * 2 /*hops*/ * 2 * 2);
  EXPECT_TRUE(t.used.contains("ring over 3"));
}

TEST(ParallelContext, KvGatherSendsValuesAndKeysToEveryOtherRankOnce) {
  const Toy toy{.tokens = {5, 8}, .heads = 1, .blocks = 2, .steps = 2};
  const int64_t attentions = 2 /*blocks*/ * 2 /*steps*/, token = 8 * 2 /*batch*/ * 4 /*width*/ * 1 /*heads*/;
  for (const bool collective : {false, true}) {
    const auto t = run(toy, {.kv_gather = 3, .collective = collective});
    const std::string verb = collective ? "all_gather kv_gather" : "stores kv_gather";
    EXPECT_LT(t.difference, 1e-12);
    EXPECT_EQ(t.calls.size(), 1u);
    EXPECT_EQ(t.calls.at(verb), 3 * 2 /*values, keys; before, behind*/ * attentions);
    EXPECT_EQ(t.bytes.at(verb), token * 2 * (5 + 8) * 2 /*others*/ * attentions);
    EXPECT_TRUE(t.used.contains(collective ? "kv_gather over 3" : "kv_gather over 3 by stores"));
  }
}

// What Ulysses has brought together is gathered for its heads only.
TEST(ParallelContext, KvGatherAroundUlyssesSendsEachRanksHeads) {
  const Toy toy{.tokens = {5, 8}, .heads = 3, .blocks = 1, .steps = 1};
  const auto t = run(toy, {.kv_gather = 2, .ulysses = 2});
  EXPECT_LT(t.difference, 1e-12);
  EXPECT_EQ(t.calls.at("all_gather kv_gather"), 4 * 2);
  EXPECT_EQ(t.bytes.at("all_gather kv_gather"), 8 * 2 * 4 * 2 * (5 + 8) * 3 /*heads*/);
  EXPECT_EQ(t.calls.at("stores ulysses"), 4 * 2);
}

TEST(ParallelContext, TensorMakesOneSumPerPairAndSaysSo) {
  const auto t = run({.blocks = 3, .steps = 2}, {.tensor = 2});
  EXPECT_LT(t.difference, 1e-12);
  EXPECT_EQ(t.calls, (std::map<std::string, int64_t>{{"all_reduce tensor", 2 * 3 * 2}}));
  EXPECT_TRUE(t.used.contains("tensor over 2"));
  EXPECT_FALSE(t.used.contains("ring over 2"));
}

TEST(ParallelContext, AllAxesOfTheSequenceTogether) {
  EXPECT_LT(run({}, {.ring = 2, .ulysses = 2, .tensor = 2}).difference, 1e-12);
  EXPECT_LT(run({}, {.kv_gather = 2, .ulysses = 2, .tensor = 2}).difference, 1e-12);
  EXPECT_LT(run({}, {.ring = 2, .kv_gather = 2, .ulysses = 2}).difference, 1e-12);
}

// A ring keeps what comes by from each rank: with stale keys it saves no memory, nor does a gather.
TEST(ParallelContext, StaleKeysAreThoseOfAllTokensForTheHeadsOfARank) {
  const Toy toy{.tokens = {5, 8}, .heads = 4, .blocks = 2, .patches = 2, .steps = 2};
  for (const auto& [strategy, heads] : {std::pair{"ulysses=2", 2}, {"ring=2", 4}, {"kv_gather=2", 4}}) {
    auto d = plan::parse_strategy(strategy);
    d.patches = 2, d.simulate = true;
    const auto failure = failure_of_layout(
        d, toy.blocks, [&, strategy = strategy, heads = heads](ParallelContext& a, comm::Transport&) {
          auto mine = at::zeros_like(toy.input(1));
          run_toy(toy, a.denoiser(), a.seq_parts(), a.seq_rank(), mine);
          EXPECT_EQ(a.kept_bytes(0),
                    2 /*blocks*/ * 2 /*k, v*/ * (5 + 8) * 2 /*batch*/ * heads * 4 /*width*/ * 8)
              << strategy;
        });
    EXPECT_EQ(failure, "");
  }
}

TEST(ParallelContext, SpreadCutsTablesOverTheRanksOfAStage) {
  const plan::ParallelConfig d{.pipeline = 2, .ring = 2, .tensor = 2};
  const auto failure = failure_of_layout(d, 2, [](ParallelContext& a, comm::Transport&) {
    auto& sharded_eval = *a.denoiser().sharded_eval;
    for (const int64_t total : {11, 2}) {
      const auto whole = noise({total, 3}, 1);
      const Range mine = sharded_eval.mine(total);
      EXPECT_TRUE(sharded_eval.gather(whole.narrow(0, mine.begin, mine.size), total).equal(whole));
      EXPECT_LE(mine.size, total / 4 + 1);
    }
  });
  EXPECT_EQ(failure, "");
}

// A convolution, a group norm and the attention of a picture, as an autoencoder has them.
at::Tensor paint(const nn::Seams& seams, const nn::CallContext& f, const at::Tensor& x) {
  const nn::Conv2d conv(noise({4, 2, 3, 3}, 2), noise({4}, 3), {}, seams.rows);
  const nn::GroupNorm norm(noise({4}, 4), noise({4}, 5), 2, 1e-6, seams.positions);
  const nn::Attention attend({0, "mid", {0}, {0}, {1, 4}}, seams);
  const auto y = norm(conv(x));
  const auto tokens = y.permute({2, 3, 0, 1}).flatten(0, 1).unsqueeze(2).contiguous();  // [rows * W, B, 1, C]
  const auto out = attend(f, {nn::Projected{tokens, tokens, tokens * 0.5}});
  return y + out.unflatten(0, {y.size(2), y.size(3)}).permute({2, 3, 0, 1});
}

TEST(ParallelContext, PicturesAreCutByRowsOverTheWholeReplica) {
  const c10::InferenceMode guard;
  for (const int64_t rows : {7, 3}) {
    const int64_t cols = 5;
    const auto x = noise({2, 2, rows, cols}, 1);
    const auto call = [&](int parts, int rank) {
      return nn::CallContext{.patch = std::nullopt,
                             .streams = {{.patches = {rows * cols, 1}, .seq_parts = parts, .unit = cols}},
                             .seq_rank = rank};
    };
    ParallelContext one({}, nullptr, nn::SdpaBackend::kAuto);
    const auto expected = paint(one.picture(), call(1, 0), x);
    const plan::ParallelConfig d{.cfg = 2, .ulysses = 2, .parallel_vae = plan::PictureRows::kAlways};
    const auto failure = failure_of_layout(d, 1, [&](ParallelContext& a, comm::Transport&) {
      const Range mine = Partition{rows, a.picture_parts()}[a.picture_rank()];
      const auto part = paint(a.picture(), call(4, a.picture_rank()), x.narrow(2, mine.begin, mine.size));
      EXPECT_LT(difference(a.gather_rows(part, rows), expected), 1e-12);
      EXPECT_TRUE(a.used().contains("picture rows over 4"));
    });
    EXPECT_EQ(failure, "");
  }
}

// One rank codes a whole picture with what is built for rows, while the others do something else; then they
// share one again.
TEST(ParallelContext, ARankCodesAPictureAlone) {
  const c10::InferenceMode guard;
  const int64_t rows = 9, cols = 5;
  const auto x = noise({2, 2, rows, cols}, 1);
  const auto call = [&](int parts, int rank) {
    return nn::CallContext{.patch = std::nullopt,
                           .streams = {{.patches = {rows * cols, 1}, .seq_parts = parts, .unit = cols}},
                           .seq_rank = rank};
  };
  for (const auto kind : {nn::SdpaBackend::kAuto, nn::SdpaBackend::kOrdered}) {
    const auto in_order = [&](std::optional<nn::OrderedArithmetic>& here) {
      if (kind == nn::SdpaBackend::kOrdered) here.emplace(nullptr);
    };
    std::optional<nn::OrderedArithmetic> ordered;
    in_order(ordered);
    ParallelContext one({}, nullptr, kind);
    const auto expected = paint(one.picture(), call(1, 0), x);
    const auto failure = failure_of_layout(
        {.ring = 2}, 1,
        [&](ParallelContext& a, comm::Transport& t) {
          std::optional<nn::OrderedArithmetic> also_here;
          in_order(also_here);
          if (t.rank() == 0) {
            const ParallelContext::AloneWithPictures alone(a);
            EXPECT_EQ(difference(paint(a.picture(), call(1, 0), x), expected), 0);
            EXPECT_FALSE(a.used().contains("picture rows over 2"));
          }
          const Range mine = Partition{rows, 2}[t.rank()];
          const auto part = paint(a.picture(), call(2, t.rank()), x.narrow(2, mine.begin, mine.size));
          EXPECT_LT(difference(a.gather_rows(part, rows), expected), 1e-12);
          EXPECT_TRUE(a.used().contains("picture rows over 2"));
        },
        kind);
    EXPECT_EQ(failure, "");
  }
}

// A denoiser with convolutions gets the same seams over its sequence ranks, whatever their
// degrees are called.
TEST(ParallelContext, ADenoiserWithConvolutionsIsCutByRowsOverTheSequence) {
  const c10::InferenceMode guard;
  const int64_t rows = 7, cols = 5;
  const auto x = noise({2, 2, rows, cols}, 1);
  const auto call = [&](int parts, int rank) {
    return nn::CallContext{.patch = std::nullopt,
                           .streams = {{.patches = {rows * cols, 1}, .seq_parts = parts, .unit = cols}},
                           .seq_rank = rank};
  };
  ParallelContext one({}, nullptr, nn::SdpaBackend::kAuto);
  const auto expected = paint(one.denoiser(), call(1, 0), x);
  for (const plan::ParallelConfig& d :
       {plan::ParallelConfig{.ring = 2, .ulysses = 2}, plan::ParallelConfig{.cfg = 2, .ulysses = 3},
        plan::ParallelConfig{.kv_gather = 4}, plan::ParallelConfig{.kv_gather = 2, .ulysses = 2},
        plan::ParallelConfig{.ring = 2, .kv_gather = 2}}) {
    const auto plan = plan::plan_for(d, {.blocks = 3, .has_convolution_mixer = true});
    EXPECT_TRUE(plan.cuts_rows);
    const auto failure = failure_of(plan::world_size(d), [&](comm::Transport& t) {
      ParallelContext a(plan, &t, nn::SdpaBackend::kAuto);
      const Range mine = Partition{rows, a.seq_parts()}[a.seq_rank()];
      const auto part =
          paint(a.denoiser(), call(a.seq_parts(), a.seq_rank()), x.narrow(2, mine.begin, mine.size));
      EXPECT_LT(difference(part, expected.narrow(2, mine.begin, mine.size)), 1e-12);
      EXPECT_TRUE(a.used().contains(str("rows over ", a.seq_parts())));
    });
    EXPECT_EQ(failure, "");
  }
}

}  // namespace
}  // namespace atelier::parallel::testing
