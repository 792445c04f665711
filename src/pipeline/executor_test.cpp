// The block loop with a model that only counts: what is called when, and what the sampler makes of the
// predictions.
#include "pipeline/executor.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "nn/patchify.h"
#include "pipeline/testing.h"
#include "sampling/flow_euler.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::random;

constexpr int kBlocks = 3;
const at::TensorOptions kWide(at::kDouble);

// The prediction is the latents times the prompt's first number, plus the step; blocks only note that they
// ran.
class CountingModel : public nn::Model {
 public:
  std::vector<std::string> calls;

  int blocks() const override { return kBlocks; }
  nn::RequestContext begin(const nn::CallContext& f, const nn::Conditioning& given,
                           std::span<const float> timesteps) override {
    calls.push_back(str("begin ", f.branch));
    const auto steps = static_cast<int64_t>(timesteps.size()), batch = given.streams[0].size(1);
    auto tables = at::empty({steps, batch, 1}, kWide);
    for (int64_t i = 0; i < steps; ++i) tables[i].fill_(timesteps[static_cast<size_t>(i)]);
    return {.tables = tables, .streams = given.streams, .width = given.streams[0].size(2)};
  }
  void enter(const nn::CallContext& f, nn::State& s) override {
    calls.push_back(str("enter ", f.branch));
    EXPECT_EQ(s.positions[0].size(0), 2);
    EXPECT_EQ(s.positions[1].size(0), 6);
  }
  void embed(const nn::CallContext& f, nn::State& s, const at::Tensor& latents) override {
    calls.push_back(str("embed ", f.branch));
    s.x = at::cat({s.context->streams[0], latents});
  }
  void block(int i, const nn::CallContext&, nn::State& s) override {
    calls.push_back(str("block ", i));
    EXPECT_EQ(s.stream(0).size(0), 2);
  }
  at::Tensor head(const nn::CallContext&, nn::State& s) override {
    calls.push_back("head");
    return s.stream(1) * s.stream(0)[0][0][0] + s.row.unsqueeze(0);
  }
};

models::Family counting_family() {
  models::Family f{};
  f.name = "counting";
  f.streams = {{"text", models::StreamSpec::kJoint, true}, {"image", models::StreamSpec::kLatent}};
  f.coordinates = [](const Json&, const models::Grid& g, int stream, int64_t tokens) {
    if (stream == 0) return at::zeros({tokens, 3}, at::TensorOptions(at::kLong));
    return nn::grid_coordinates(g.rows, g.cols);
  };
  return f;
}

struct NotingMemory : nn::Resident {
  std::vector<std::string> calls;
  void will_run(std::span<const int> blocks) override { calls.push_back(str("next ", blocks.size())); }
  void before(int block) override { calls.push_back(str("before ", block)); }
};

struct Loop {
  models::Family family = counting_family();
  Json config;
  CountingModel model;
  std::vector<plan::ModelChunk> route{{0, 0, kBlocks}};
  parallel::ParallelContext parallel_context{{}, nullptr, nn::SdpaBackend::kAuto};
  NotingMemory memory;
  Executor executor{
      {family, config, {{&model, &memory}}}, parallel_context, route, ExecutorOptions{kWide, nullptr}};
  sampling::FlowEuler sampler{Json{{"shift", 3.0}}, {.steps = 2, .linear_sigmas = true}};

  Denoise work(const std::vector<double>& branches, double cfg = 1) {
    Denoise w;
    for (const double first : branches)
      w.branches.push_back({.streams = {at::full({2, 1, 4}, first, kWide)}});
    w.cfg.scale = cfg;
    w.grid = {.rows = 2, .cols = 3, .channels = 4};
    w.sampler = &sampler;
    w.latents = random({6, 1, 4});
    return w;
  }
  // What the loop must come to, without it.
  at::Tensor by_hand(const Denoise& w, const std::vector<double>& branches) {
    auto x = w.latents;
    for (int i = 0; i < 2; ++i) {
      const double t = sampler.steps()[static_cast<size_t>(i)].time;
      auto p = x * branches[0] + t;
      if (branches.size() == 2) p = (x * branches[1] + t) + w.cfg.scale * (p - (x * branches[1] + t));
      x = sampler.step(p, i, x, {});
    }
    return x;
  }
};

TEST(BlockLoop, RunsEveryBlockOfEveryStepInOrder) {
  Loop run;
  const auto work = run.work({0.5});
  const auto out = run.executor.denoise(work, {});
  EXPECT_LT(distance(out, run.by_hand(work, {0.5})), 1e-12);
  const std::vector<std::string> step{"embed 0", "block 0", "block 1", "block 2", "head"};
  std::vector<std::string> expected{"enter 0", "begin 0"};
  for (int i = 0; i < 2; ++i) expected.insert(expected.end(), step.begin(), step.end());
  EXPECT_EQ(run.model.calls, expected);
  EXPECT_EQ(run.memory.calls, (std::vector<std::string>{"next 3", "before 0", "before 1", "before 2",
                                                        "next 3", "before 0", "before 1", "before 2"}));
}

TEST(BlockLoop, GuidesTwoBranches) {
  Loop run;
  const auto work = run.work({0.5, -0.25}, 4);
  const auto out = run.executor.denoise(work, {});
  EXPECT_LT(distance(out, run.by_hand(work, {0.5, -0.25})), 1e-12);
  EXPECT_EQ(std::count(run.model.calls.begin(), run.model.calls.end(), "begin 1"), 1);
  EXPECT_EQ(std::count(run.model.calls.begin(), run.model.calls.end(), "embed 1"), 2);
}

TEST(BlockLoop, KeepsItsBuffersForASecondRequestAndNothingOfTheFirst) {
  Loop run;
  run.executor.denoise(run.work({0.5}), {});
  run.model.calls.clear();
  const auto work = run.work({-0.125});
  EXPECT_LT(distance(run.executor.denoise(work, {}), run.by_hand(work, {-0.125})), 1e-12);
  EXPECT_EQ(run.model.calls.front(), "begin 0") << "coordinates follow from the shape, which is the same";
  const auto two = run.work({0.5, 0.25}, 2);
  EXPECT_LT(distance(run.executor.denoise(two, {}), run.by_hand(two, {0.5, 0.25})), 1e-12);
}

TEST(BlockLoop, DoesNotTouchTheCallersLatents) {
  Loop run;
  const auto work = run.work({0.5});
  const auto before = work.latents.clone();
  run.executor.denoise(work, {});
  EXPECT_TRUE(at::equal(work.latents, before));
}

TEST(BlockLoop, TapsDoNotChangeTheResult) {
  Loop run;
  const auto work = run.work({0.5, 0.25}, 3);
  const auto plain = run.executor.denoise(work, {});
  ActivationRecorder probes;
  EXPECT_TRUE(at::equal(run.executor.denoise(work, {.probes = &probes}), plain));
  const auto seen = probes.tensors();
  EXPECT_LT(distance(seen.at("step0.model_in"), work.latents), 1e-6);
  EXPECT_LT(distance(seen.at("step1.latents"), plain), 1e-6);
  EXPECT_EQ(seen.count("step2.latents"), 0u);
  EXPECT_GT(distance(seen.at("step0.guided"), seen.at("step0.model_out")), 1e-3);
}

TEST(BlockLoop, EndsBeforeAStepThatMayNotBegin) {
  Loop run;
  std::vector<int> asked;
  const StepCallbacks callbacks{.may_begin = [&](int step) { return asked.push_back(step), step < 1; }};
  EXPECT_EQ(error_of(Kind::kInterrupted, [&] { run.executor.denoise(run.work({0.5}), callbacks); }),
            "interrupted after 1 of 2 steps");
  EXPECT_EQ(asked, (std::vector{0, 1}));
  EXPECT_EQ(std::count(run.model.calls.begin(), run.model.calls.end(), "block 0"), 1);
}

TEST(BlockLoop, TellsWhatEachStepTook) {
  Loop run;
  EXPECT_TRUE(run.executor.step_ms().empty());
  run.executor.denoise(run.work({0.5}),
                       {.on_step = [](int) { std::this_thread::sleep_for(std::chrono::milliseconds(3)); }});
  const auto ms = run.executor.step_ms();
  ASSERT_EQ(ms.size(), 2u);
  EXPECT_GE(ms[1], 3) << "what is done between the steps counts for the later one";
}

// Two ranks record their rows; the pieces come together whatever the order.
TEST(Collecting, JoinsThePiecesOfSeveralRanks) {
  ActivationRecorder c;
  const auto all = random({7, 2});
  nn::CallContext f;
  f.streams = {{.patches = {3, 1}, .seq_parts = 2, .pinned_to_first_patch = true},
               {.patches = {4, 2}, .seq_parts = 2}};
  for (const int rank : {1, 0}) {
    f.seq_rank = rank;
    RankRecorder recorder(&c, "t.");
    std::vector<at::Tensor> rows;
    int64_t before = 0;
    for (const auto& stream : f.streams) {
      for (const Range& r : stream.held(rank, std::nullopt))
        rows.push_back(all.narrow(0, before + r.begin, r.size));
      before += stream.patches.total;
    }
    recorder.record(f, "x", at::cat(rows), nn::Recorder::kAll);
    if (rank == 1) {
      EXPECT_TRUE(c.tensors().empty()) << "half of it is not a tensor";
    }
  }
  EXPECT_LT(distance(c.tensors().at("t.x"), all), 1e-6);
}

}  // namespace
}  // namespace atelier::pipeline
