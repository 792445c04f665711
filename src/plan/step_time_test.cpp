// Predicted times: what must hold of them whatever the constants are, and the machines they are made for.
#include "plan/step_time.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/testing.h"
#include "plan/planner.h"

namespace atelier::plan {
namespace {

// Two streams, then one: the shape of a joint transformer.
ModelWork joint(int doubles = 4, int singles = 8, double width = 3072) {
  ModelWork out{.head_size = 128};
  const double products = 12 * width * width;
  for (int i = 0; i < doubles + singles; ++i) {
    BlockWork b{.per_token = products, .per_text_token = products, .width = width, .self_width = width};
    if (i < doubles) b.sums = 2, b.has_text_weights = true;
    b.beside = i < doubles ? 0 : 4 * width * width;
    b.modulation = i < doubles ? 12 : 3;
    out.blocks.push_back(b);
    out.weights.blocks.push_back(static_cast<int64_t>(products * (i < doubles ? 2 : 1)));
  }
  out.weights.tables = static_cast<int64_t>(72 * width * width);
  return out;
}

StepQuery query(int64_t tokens = 4096, int branches = 1, int steps = 4) {
  return {{{.name = "joint", .heads = 24, .blocks = 12},
           {.image_tokens = tokens, .text_tokens = 512, .branches = branches, .steps = steps, .batch = 1}},
          joint()};
}

const Hardware& h200() {
  return *find_hardware("H200");
}

double seconds(const std::string& strategy, const StepQuery& q = query(), const Hardware& h = h200()) {
  return step_time(q, parse_strategy(strategy), h).seconds();
}

TEST(StepTime, PartsAddUpAndOneRankSendsNothing) {
  const auto one = step_time(query(), {}, h200());
  EXPECT_EQ(one.exchange, 0);
  EXPECT_EQ(one.weights, 0);
  EXPECT_NEAR(one.idle, 0, 1e-9);
  EXPECT_NEAR(one.seconds(), one.products + one.attention + one.pointwise, 1e-9);
}

TEST(StepTime, MessagesThatAreWaitedForTakeTheirWholeTime) {
  for (const std::string layout :
       {"ring=4", "kv_gather=4, collective", "ulysses=4, collective", "pipefusion=4"})
    EXPECT_GT(seconds(layout + ", overlap_p2p_comm=false"), 1.001 * seconds(layout)) << layout;
  EXPECT_EQ(seconds("overlap_p2p_comm=false"), seconds(""));
}

TEST(StepTime, MoreRanksAreFasterAndNeverIdeally) {
  const double one = seconds("");
  for (const char* strategy : {"ulysses=2", "ring=2", "tensor=2", "kv_gather=2", "ulysses=4",
                               "ring=2, ulysses=2", "kv_gather=2, ulysses=2"}) {
    const int ranks = world_size(parse_strategy(strategy));
    EXPECT_LT(seconds(strategy), one) << strategy;
    EXPECT_GT(seconds(strategy), one / ranks) << strategy;
  }
  // Two branches on two ranks are one branch on one, but for a message per step.
  EXPECT_NEAR(seconds("cfg=2", query(4096, 2)), one, 1e-4);
  EXPECT_GT(seconds("", query(4096, 2)), 1.8 * one);
}

TEST(StepTime, AttentionGrowsWithTheSquareOfTheTokens) {
  const auto small = step_time(query(4096), {}, h200()), large = step_time(query(16384), {}, h200());
  const double ratio = 16896.0 / 4608;
  EXPECT_NEAR(large.attention / small.attention, ratio * ratio, 0.12 * ratio * ratio);
  EXPECT_NEAR(large.products / small.products, ratio, 0.1 * ratio);
  EXPECT_NEAR(large.pointwise / small.pointwise, ratio, 1e-6 * ratio);
}

// A rank sends its keys and values to every other, whatever their number: with more ranks Ulysses sends less.
TEST(StepTime, GatheredKeysGrowWithTheRanks) {
  const auto exchange = [](const char* strategy) {
    return step_time(query(), parse_strategy(strategy), h200()).exchange;
  };
  EXPECT_GT(exchange("kv_gather=8"), exchange("kv_gather=2"));
  EXPECT_GT(exchange("kv_gather=8"), 2 * exchange("ulysses=8"));
  EXPECT_GT(exchange("kv_gather=2, ulysses=2"), exchange("ulysses=2"));
  // Attention of a part of the queries over all keys.
  const auto part = step_time(query(), parse_strategy("kv_gather=2"), h200());
  EXPECT_NEAR(part.attention, step_time(query(), {}, h200()).attention / 2, 0.2 * part.attention);
}

// Keys and values as bytes: half of what a gather sends, three quarters of what there and back take.
TEST(StepTime, AttentionInE4m3SendsHalf) {
  auto e4m3 = query();
  e4m3.has_e4m3_attention = true;
  const auto share = [&](const char* strategy) {
    const auto degrees = parse_strategy(strategy);
    return step_time(e4m3, degrees, h200()).exchange / step_time(query(), degrees, h200()).exchange;
  };
  EXPECT_LT(share("kv_gather=8"), 0.6);
  EXPECT_GT(share("kv_gather=8"), 0.2);  // products hide a part
  EXPECT_LT(share("ulysses=4"), 0.9);
  EXPECT_GT(share("ulysses=4"), 0.55);
  EXPECT_EQ(step_time(e4m3, {}, h200()).seconds(), step_time(query(), {}, h200()).seconds());
}

TEST(StepTime, WholeStepsOfStagesLeaveTheOthersIdle) {
  const auto sync = step_time(query(), parse_strategy("pipefusion=4, sync"), h200());
  EXPECT_NEAR(sync.seconds(), seconds(""), 0.1 * seconds(""));
  EXPECT_NEAR(sync.idle / sync.seconds(), 0.75, 0.05);
  const auto few = step_time(query(4096, 1, 4), parse_strategy("pipefusion=4"), h200());
  const auto many = step_time(query(4096, 1, 50), parse_strategy("pipefusion=4"), h200());
  EXPECT_LT(many.seconds(), few.seconds());
  EXPECT_LT(many.idle / many.seconds(), few.idle / few.seconds());
}

TEST(StepTime, ShardsCostWhatTheirGathersDoNotHide) {
  const auto plain = step_time(query(), parse_strategy("ulysses=4"), h200());
  const auto sharded = step_time(query(), parse_strategy("ulysses=4, shard=4"), h200());
  EXPECT_GT(sharded.weights, 0);
  EXPECT_NEAR(sharded.seconds() - sharded.weights, plain.seconds(), 1e-9);
}

TEST(StepTime, SlowLinksTurnTheOrderAround) {
  Hardware pcie = h200();
  pcie.links = links_named("pcie", h200());
  EXPECT_GT(seconds("ulysses=4", query(), pcie), seconds("ulysses=4"));
  EXPECT_GT(seconds("tensor=4", query(), pcie) / seconds("ulysses=4", query(), pcie),
            seconds("tensor=4") / seconds("ulysses=4"));
  Hardware host = h200();
  host.links = links_named("host", h200());
  EXPECT_GT(seconds("ulysses=4", query(), host), seconds("ulysses=4", query(), pcie));
  // Beyond a socket half of the rate is left: the wall between 4 and 8 PCIe GPUs.
  const Hardware& l40 = *find_hardware("NVIDIA L40");
  EXPECT_GT(seconds("ulysses=8", query(), l40), 0.65 * seconds("ulysses=4", query(), l40));
  Hardware measured = h200();
  measured.links = at_measured_rate(measured.links, measured.links.shift.rate / 4);
  EXPECT_GT(seconds("ring=4", query(), measured), seconds("ring=4"));
}

TEST(Hardware, NamesAreWholeWords) {
  EXPECT_EQ(find_hardware("NVIDIA H200")->name, "H200");
  EXPECT_EQ(find_hardware("NVIDIA A100-SXM4-80GB")->name, "A100");
  EXPECT_EQ(find_hardware("Tesla V100-SXM2-32GB")->name, "V100");
  EXPECT_EQ(find_hardware("t4")->name, "T4");
  EXPECT_EQ(find_hardware("NVIDIA L40S"), nullptr);
  EXPECT_EQ(find_hardware("NVIDIA GeForce RTX 4090"), nullptr);
  for (const auto& h : hardware_presets()) {
    EXPECT_TRUE(h.source.starts_with("measured") || h.source.starts_with("cited: ")) << h.name;
    EXPECT_GT(h.memory, 0) << h.name;
  }
  EXPECT_EQ(message_of(Kind::kUsage, [] { links_named("nvlink", *find_hardware("T4")); }),
            "links nvlink: the T4 has none; there are pcie and host");
  EXPECT_NE(message_of(Kind::kUsage, [] { links_named("wifi", *find_hardware("T4")); })
                .find("nvlink, pcie and host"),
            std::string::npos);
}

PlanQuery plan_of(const StepQuery& step, int64_t room = 0) {
  MemoryQuery memory;
  memory.encoders = 5'000'000'000, memory.vae = 80'000'000, memory.pixels = 1024 * 1024;
  return {.step = step, .memory = memory, .hardware = h200(), .room = room};
}

TEST(Planner, TheChoiceIsTheFastestThatFitsAndIsExact) {
  EXPECT_EQ(to_string(best_exact(plan_of(query()), 4).degrees), "kv_gather=4");
  EXPECT_EQ(to_string(best_exact(plan_of(query(4096, 2)), 4).degrees), "cfg=2, kv_gather=2");
  EXPECT_EQ(to_string(best_exact(plan_of(query()), 1).degrees), "data=1");
  // Any number of GPUs is usable, prime ones too.
  for (int n = 1; n <= 9; ++n) EXPECT_EQ(world_size(best_exact(plan_of(query()), n).degrees), n);
  // Pictures that do not wait for each other are drawn side by side.
  StepQuery many = query();
  many.layout.work.pictures = 64;
  EXPECT_EQ(to_string(best_exact(plan_of(many), 4).degrees), "data=4");
  for (const auto& p : ranked(plan_of(query(4096, 1, 50)), 8))
    EXPECT_EQ(p.is_exact, p.degrees.pipeline == 1) << to_string(p.degrees);
}

TEST(Planner, LessRoomTakesLayoutsThatHoldLess) {
  const auto whole = predict(plan_of(query()), parse_strategy("ulysses=4"));  // all of the weights
  auto tight = plan_of(query(), whole.most().total() - 1);
  const auto chosen = best_exact(tight, 4);
  EXPECT_TRUE(chosen.fits);
  EXPECT_LE(chosen.most().total(), tight.room);
  EXPECT_TRUE(chosen.degrees.shard > 1 || chosen.degrees.tensor > 1) << to_string(chosen.degrees);
  // Where nothing fits, what comes nearest is told.
  const auto none = best_exact(plan_of(query(), 1 << 30), 4);
  EXPECT_FALSE(none.fits);
  const auto all = ranked(plan_of(query(), 1 << 30), 4);
  for (const auto& p : all) EXPECT_GE(p.most().total(), none.most().total());
}

TEST(Planner, ASentenceNamesTheCutTheCostsAndTheFullestRank) {
  const auto q = plan_of(query());
  const auto one = predict(q, {});
  const auto text = explanation(predict(q, parse_strategy("ulysses=4")), one, q);
  for (const char* part : {"1/4 of the tokens", "heads change hands", "messages", "ms per step",
                           "times one GPU", "rank 0 holds most", "denoiser", "encoders", "decoding"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  const auto gathered = explanation(predict(q, parse_strategy("kv_gather=2, ulysses=2")), one, q);
  EXPECT_NE(gathered.find("heads change hands in groups, keys and values are gathered between them"),
            std::string::npos)
      << gathered;
  const auto stale = explanation(predict(q, parse_strategy("pipefusion=2")), one, q);
  EXPECT_NE(stale.find("approximate"), std::string::npos) << stale;
}

TEST(RankMemory, EveryCutTakesItsShare) {
  const auto q = plan_of(query());
  const auto of = [&](const std::string& strategy) {
    return rank_memory(q.step, q.memory, parse_strategy(strategy));
  };
  const auto one = of("").front();
  EXPECT_GT(one.encoders, 0);
  EXPECT_GT(one.pictures, 0);
  const auto four = of("ulysses=4");
  ASSERT_EQ(four.size(), 4u);
  EXPECT_EQ(four[0].encoders, one.encoders);
  EXPECT_EQ(four[1].encoders + four[1].pictures, 0);  // a picture of unknown rows is not shared
  EXPECT_EQ(four[1].vae, one.vae) << "it may be asked for one that is";
  EXPECT_EQ(of("ulysses=4, parallel_vae=false")[1].vae, 0);
  // Only the tables are shared.
  const int64_t tables = 2 * q.step.model.weights.tables;
  EXPECT_NEAR(static_cast<double>(one.denoiser - four[1].denoiser), 0.75 * static_cast<double>(tables), 2);
  EXPECT_NEAR(static_cast<double>(of("tensor=2")[1].denoiser), static_cast<double>(one.denoiser) / 2, 2);
  EXPECT_LT(of("ulysses=4, shard=4")[1].denoiser, four[1].denoiser * 6 / 10);
  // Keys of all ranks stand beside what a ring holds.
  EXPECT_GT(of("kv_gather=4")[1].activations, of("ring=4")[1].activations);
  // Stale keys are those of all tokens; only heads are cut.
  EXPECT_EQ(of("pipefusion=2, kv_gather=2")[0].keys, of("pipefusion=2")[0].keys);
  EXPECT_EQ(of("pipefusion=2, ring=2")[0].keys, of("pipefusion=2")[0].keys);
  EXPECT_EQ(2 * of("pipefusion=2, ulysses=2")[0].keys, of("pipefusion=2")[0].keys);
  // Stages hold their blocks, and stale keys where patches flow.
  const auto stages = of("pipefusion=2");
  EXPECT_EQ(stages[0].denoiser + stages[1].denoiser, one.denoiser);
  EXPECT_GT(stages[0].keys, 0);
  EXPECT_EQ(of("pipefusion=2, sync")[0].keys, 0);
  EXPECT_GT(of("ulysses=4, parallel_vae")[1].pictures, 0);
  EXPECT_LT(of("ulysses=4, parallel_vae")[0].pictures, four[0].pictures);
}

TEST(RankMemory, RanksShareThePictureByDefault) {
  auto q = plan_of(query());
  q.memory.latent_rows = 128;
  const auto of = [&](const std::string& strategy) {
    return rank_memory(q.step, q.memory, parse_strategy(strategy));
  };
  const auto one = of("").front(), shared = of("ulysses=4").back();
  EXPECT_NEAR(static_cast<double>(shared.pictures), 0.35 * static_cast<double>(one.pictures), 2);
  EXPECT_EQ(of("ulysses=4, parallel_vae=false").back().pictures, 0);
  EXPECT_EQ(of("ulysses=4, parallel_vae=false").front().pictures, one.pictures);
  q.memory.has_tiles = true;
  EXPECT_EQ(of("ulysses=4").back().vae, 0) << "the first rank decodes tiles";
}

// Wan 1.3B, 81 frames in 480p, as measured: results/families_gpus_4.json, and _2.
TEST(Planner, DecodingAVideoIsWithinAnEighthOfWhatItTook) {
  auto q = plan_of(query());
  q.memory.pixels = 832 * 480, q.memory.latent_rows = 60, q.memory.vae_width = 384;
  q.memory.frames = 81, q.memory.frames_at_once = 4;
  for (const auto& [layout, measured] : {std::pair{"", 0.801}, {"ulysses=2", 0.515}, {"ulysses=4", 0.292}})
    EXPECT_NEAR(predict(q, parse_strategy(layout)).decode_s / measured, 1, 0.125) << layout;
}

// Of 1024 x 1024 pixels: two ranks gain a little, four half; what is smaller is left to one.
TEST(Planner, DecodingIsSharedWhereThatIsFaster) {
  auto q = plan_of(query());
  q.memory.latent_rows = 128;
  const auto of = [&](const std::string& strategy) { return predict(q, parse_strategy(strategy)).decode_s; };
  const double one = of("");
  EXPECT_LT(of("ulysses=2"), 0.9 * one);
  EXPECT_LT(of("ulysses=4"), 0.6 * one);
  EXPECT_EQ(of("ulysses=4, parallel_vae=false"), one);
  EXPECT_EQ(of("data=4"), one);
  const auto text = explanation(predict(q, parse_strategy("ulysses=4")), predict(q, {}), q);
  EXPECT_NE(text.find("all ranks decode, each its rows"), std::string::npos) << text;
  q.memory.latent_rows = 64, q.memory.pixels = 512 * 512;
  EXPECT_EQ(of("ulysses=4"), of(""));
  EXPECT_GT(of("ulysses=4, parallel_vae"), of("")) << "messages take longer than what they save";
}

// Five times the tokens, of every picture and branch, in the model's type.
TEST(RankMemory, AStepCacheHoldsTokens) {
  auto q = plan_of(query());
  const auto of = [&](const char* layout) {
    return rank_memory(q.step, q.memory, parse_strategy(layout)).back().activations;
  };
  const int64_t one = of(""), four = of("ulysses=4");
  q.step.layout.work.has_step_cache = true;
  const int64_t more = of("") - one;
  const auto& w = q.step.layout.work;
  EXPECT_GE(more, 5 * w.image_tokens * 3072 * 2);
  EXPECT_NEAR(static_cast<double>(of("ulysses=4") - four), static_cast<double>(more) / 4,
              1e-3 * static_cast<double>(more));
}

TEST(RankMemory, OffloadingHoldsOnePartAtATime) {
  auto q = plan_of(query());
  const auto total = [&](Offload kind) {
    q.memory.offload = kind;
    return rank_memory(q.step, q.memory, {}).front().total();
  };
  const int64_t all = total(Offload::kNone), whole = total(Offload::kWhole), blocks = total(Offload::kBlocks);
  const int64_t encoders = total(Offload::kEncoders);
  const int64_t texts = 2 * q.memory.encoders;
  EXPECT_EQ(encoders, std::max(texts, all - texts));  // they are gone when the rest is fullest
  EXPECT_LE(whole, encoders);
  EXPECT_LE(blocks, whole);
  EXPECT_GE(blocks, 2 * q.memory.encoders);  // they come in whole
}

}  // namespace
}  // namespace atelier::plan
