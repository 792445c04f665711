// A small denoiser on the real seams, for tests of the executor: two joint streams, attention, features cut
// by tensor ranks, long skips, prompts that matter. And ranks as threads that draw with it.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "nn/attention.h"
#include "nn/patchify.h"
#include "nn/testing.h"
#include "parallel/shards.h"
#include "parallel/toy_for_test.h"
#include "pipeline/executor.h"
#include "pipeline/fake_graphs.h"
#include "plan/route.h"
#include "sampling/flow_euler.h"
#include "sampling/noise.h"

namespace atelier::pipeline {

inline constexpr int kToyText = 0, kToyImage = 1;
inline constexpr int64_t kToyWidth = 8, kToyHeads = 5, kToyHeadWidth = 4, kToyChannels = 3;

struct ToyOptions {
  int blocks = 9;
  bool has_skips = true;
  bool keeps_by_reference = false;  // a planted fault
  uint64_t weights = 100;           // seed
};

class ToyDenoiser : public nn::Model {
 public:
  // memory: of the blocks' weights; null: their own.
  ToyDenoiser(const nn::Seams& seams, const ToyOptions& o, nn::BlockMemory* memory = nullptr)
      : o_(o), features_(seams.features) {
    const Range heads = Partition{kToyHeads, seams.tensor_size}[seams.tensor_rank];
    const auto weight = [&](at::IntArrayRef sizes, int block, int which) {
      const auto seed = o.weights + static_cast<uint64_t>(10 * block + which);
      return parallel::testing::noise(sizes, seed) * 0.35;
    };
    const auto placed = [&](int block, const at::Tensor& values) {
      if (!memory) return values;
      const auto place = memory->take(block, values.sizes(), values.options()).weight;
      return place.is_meta() ? place : place.copy_(values);
    };
    for (int i = 0; i < o.blocks; ++i) {
      const auto qkv = weight({3, kToyHeads, kToyHeadWidth, kToyWidth}, i, 0);
      const auto out = weight({kToyWidth, kToyHeads, kToyHeadWidth}, i, 1);
      blocks_.push_back(
          {placed(i, qkv.narrow(1, heads.begin, heads.size).reshape({-1, kToyWidth})),
           placed(i, out.narrow(1, heads.begin, heads.size).reshape({kToyWidth, -1})),
           placed(i, weight({kToyWidth, 2 * kToyWidth}, i, 2)),
           nn::Attention(
               {i, "toy", {kToyText, kToyImage}, {kToyText, kToyImage}, {heads.size, kToyHeadWidth}},
               seams)});
      if (memory) memory->finish(i);
    }
    in_ = weight({kToyWidth, kToyChannels}, -1, 3);
    head_ = weight({kToyChannels, kToyWidth}, -1, 4);
    norm_.weight = at::ones({kToyHeadWidth}, at::TensorOptions(at::kDouble));
  }

  int blocks() const override { return o_.blocks; }

  nn::RequestContext begin(const nn::CallContext&, const nn::Conditioning& c,
                           std::span<const float> times) override {
    const auto t = at::tensor(at::ArrayRef<float>(times.data(), times.size())).to(at::kDouble) / 1000;
    const auto row = t.view({-1, 1, 1}) + c.whole.at("pooled").unsqueeze(0);  // [steps, B, width]
    return {.tables = row, .streams = {c.streams[0]}, .width = kToyWidth};
  }
  void enter(const nn::CallContext&, nn::State& s) override {
    const int64_t axes[] = {2, 2};
    s.ropes.clear();
    for (const auto& at : s.positions)
      s.ropes.push_back(nn::rope_of(at.narrow(1, 1, 2), axes, 100, at::TensorOptions(at::kDouble)));
    s.ropes.push_back({at::cat({s.ropes[0].cos, s.ropes[1].cos}), at::cat({s.ropes[0].sin, s.ropes[1].sin})});
  }
  void embed(const nn::CallContext&, nn::State& s, const at::Tensor& latents) override {
    const auto image = at::linear(latents.to(at::kDouble), in_);
    s.x = s.n[kToyText] > 0 ? at::cat({s.context->streams[0], image}) : image.clone();
  }
  void block(int i, const nn::CallContext& call, nn::State& s) override {
    const auto& b = blocks_.at(static_cast<size_t>(i));
    const int partner = o_.blocks - 1 - i;
    if (o_.has_skips && i > partner) s.x.add_(at::linear(at::cat({s.x, s.skip(partner)}, -1), b.skip));
    const auto attended = b.attend(
        call, {nn::split_qkv(at::linear(s.x + s.row, b.qkv), kToyHeadWidth, norm_, norm_, s.ropes[2])});
    auto out = at::linear(attended, b.out);
    if (features_) features_->sum(out);
    s.x.add_(out, 0.5);
    if (!o_.has_skips || i >= partner) return;
    if (o_.keeps_by_reference)
      s.skips[i] = s.x;
    else
      s.keep_skip(i, s.x);
  }
  at::Tensor head(const nn::CallContext&, nn::State& s) override {
    return at::linear(s.stream(kToyImage), head_);
  }

 private:
  struct ToyLayer {
    at::Tensor qkv, out, skip;
    nn::Attention attend;
  };
  ToyOptions o_;
  nn::Reducer* features_;
  std::vector<ToyLayer> blocks_;
  at::Tensor in_, head_;
  nn::HeadNorm norm_;
};

// Ancestral Euler steps along a straight path, second order: scaled inputs, noise in every step but the last,
// and a memory of the last prediction. Late steps have a scale of guidance and a denoiser of their own.
class ToySampler : public sampling::Sampler {
 public:
  ToySampler(int steps, int experts) {
    for (int i = 0; i < steps; ++i) {
      sigmas_.push_back(1.0f - static_cast<float>(i) / static_cast<float>(steps));
      const bool late = 2 * i >= steps;
      steps_.push_back({.time = 1000 * sigmas_.back(),
                        .input_divisor = std::sqrt(sigmas_.back() * sigmas_.back() + 1),
                        .cfg = late ? std::optional(1.5) : std::nullopt,
                        .expert = late ? experts - 1 : 0,
                        .draws_noise = i + 1 < steps});
    }
    sigmas_.push_back(0);
  }
  std::span<const sampling::Step> steps() const override { return steps_; }
  std::span<const float> sigmas() const override { return sigmas_; }
  double init_noise_sigma() const override { return 1; }
  at::Tensor step(const at::Tensor& prediction, int i, const at::Tensor& x,
                  const at::Tensor& noise) override {
    const auto k = static_cast<size_t>(i);
    const auto direction = last_.defined() ? 1.5 * prediction - 0.5 * last_ : prediction;
    last_ = prediction.clone();
    const auto next = x + static_cast<double>(sigmas_[k + 1] - sigmas_[k]) * direction;
    return noise.defined() ? next + 0.3 * static_cast<double>(sigmas_[k + 1]) * noise : next;
  }
  at::Tensor add_noise(const at::Tensor& picture, const at::Tensor& noise, int i) const override {
    return picture + static_cast<double>(sigmas_[static_cast<size_t>(i)]) * noise;
  }
  std::unique_ptr<sampling::Sampler> clone() const override { return std::make_unique<ToySampler>(*this); }
  void hand_over_below(double time, double cfg) override {
    for (auto& step : steps_) {
      if (step.time < time) step.expert = 1, step.cfg = cfg;
    }
  }

 private:
  std::vector<sampling::Step> steps_;
  std::vector<float> sigmas_;
  at::Tensor last_;
};

struct ToyRequest {
  int64_t rows = 4, cols = 3, text = 5, batch = 2;
  int steps = 4, branches = 2;
  uint64_t seed = 1;
  sampling::Guidance guidance{.scale = 3};
  bool is_ancestral = false;
  StepCacheRule cache = {};
  int64_t only = -1;  // one of the batch, drawn alone; -1: all
};

// One rank: its denoisers and their executor.
class ToyRank {
 public:
  struct ToySetup {
    plan::ParallelConfig config;
    ToyOptions model;
    int experts = 1;
    bool graphs = false;
    bool joins_branches = false;
    int64_t kept_bytes = int64_t{1} << 30;
    std::vector<plan::ModelChunk> route;  // empty: as the model wants it
  };
  // models: instead of the setup's.
  ToyRank(const ToySetup& setup, comm::Transport* transport, std::vector<Denoiser::Expert> models = {})
      : setup_(setup),
        route_(!setup.route.empty()    ? setup.route
               : setup.model.has_skips ? plan::folded(setup.model.blocks, setup.config.pipeline)
                                       : plan::straight(setup.model.blocks, setup.config.pipeline)),
        parallel_({setup.config, route_}, transport, nn::SdpaBackend::kMath),
        experts_(std::move(models)) {
    for (int e = 0; experts_.size() < static_cast<size_t>(setup.experts); ++e) {
      auto model = setup.model;
      model.weights += static_cast<uint64_t>(1000 * e);
      memories_.push_back(memory_of(model));
      models_.push_back(std::make_unique<ToyDenoiser>(parallel_.denoiser(), model, memories_.back().get()));
      experts_.push_back({models_.back().get(), memories_.back().get()});
    }
    if (setup.graphs) fake = new FakeGraphs;
    executor_ = std::make_unique<Executor>(Denoiser{family(), config_, experts_}, parallel_, route_,
                                           ExecutorOptions{.tensors = at::TensorOptions(at::kDouble),
                                                           .graphs = std::unique_ptr<GraphBackend>(fake),
                                                           .joins_branches = setup.joins_branches,
                                                           .kept_bytes = setup.kept_bytes});
  }

  // Whole latents on the first stage, undefined elsewhere.
  at::Tensor draw(const ToyRequest& r, const StepCallbacks& callbacks = {}) {
    const auto number = [&](uint64_t which) { return 1000 * r.seed + which; };
    std::vector<uint64_t> seeds;
    for (int64_t b = 0; b < r.batch; ++b) seeds.push_back(number(static_cast<uint64_t>(b)));
    sampling::NoiseSource source(seeds, {1, kToyChannels, r.rows, r.cols});
    const auto wanted = [&](const at::Tensor& t, int64_t samples) {
      return r.only < 0 ? t : t.narrow(samples, r.only, 1);
    };
    const auto tokens = [&](const at::Tensor& t) {
      return wanted(t, 0).flatten(2).permute({2, 0, 1}).contiguous().to(at::kDouble);
    };
    Denoise work;
    for (int b = 0; b < r.branches; ++b) {
      const auto u = 10 + static_cast<uint64_t>(b);
      work.branches.push_back(
          {.streams = {wanted(parallel::testing::noise({r.text, r.batch, kToyWidth}, number(u)), 1)},
           .whole = {{"pooled", wanted(parallel::testing::noise({r.batch, kToyWidth}, number(u + 50)), 0)}}});
    }
    work.grid = {.frames = 1, .rows = r.rows, .cols = r.cols, .channels = kToyChannels};
    work.latents = tokens(source.draw(sampling::NoiseSource::kInitial));
    work.noise = [&](int step) { return tokens(source.draw(step)); };
    work.cfg = r.guidance;
    work.cache = r.cache;
    std::unique_ptr<sampling::Sampler> sampler = std::make_unique<ToySampler>(r.steps, setup_.experts);
    if (!r.is_ancestral)
      sampler = std::make_unique<sampling::FlowEuler>(Json{{"shift", 3.0}}, sampling::Call{r.steps, true});
    work.sampler = sampler.get();
    return executor_->denoise(work, callbacks);
  }

  Executor& executor() { return *executor_; }
  const parallel::ParallelContext& parallel() const { return parallel_; }
  FakeGraphs* fake = nullptr;  // the executor's

  static const models::Family& family() {
    static const models::Family toy = [] {
      models::Family f{};
      f.name = "toy";
      f.streams = {{"text", models::StreamSpec::kJoint, true}, {"image", models::StreamSpec::kLatent, false}};
      f.coordinates = [](const Json&, const models::Grid& g, int stream, int64_t tokens) {
        return stream == kToyText ? at::zeros({tokens, 3}, at::TensorOptions(at::kLong))
                                  : nn::grid_coordinates(g.rows, g.cols);
      };
      return f;
    }();
    return toy;
  }

 private:
  std::unique_ptr<nn::BlockMemory> memory_of(const ToyOptions& model) const {
    if (!parallel_.shards()) return std::make_unique<nn::Resident>();
    nn::BlockSizes sizes;
    const ToyDenoiser sized(parallel_.denoiser(), model, &sizes);
    return std::make_unique<parallel::Sharded>(*parallel_.shards(), sizes.bytes(), c10::kCPU);
  }

  ToySetup setup_;
  std::vector<plan::ModelChunk> route_;
  parallel::ParallelContext parallel_;
  Json config_;
  std::vector<std::unique_ptr<nn::BlockMemory>> memories_;
  std::vector<std::unique_ptr<ToyDenoiser>> models_;
  std::vector<Denoiser::Expert> experts_;
  std::unique_ptr<Executor> executor_;
};

// Runs `body` on every rank of the layout, one thread each; fails the test with what went wrong.
inline void on_toy_ranks(const ToyRank::ToySetup& setup,
                         const std::function<void(ToyRank&, int rank)>& body) {
  const int world = plan::world_size(setup.config);
  if (world == 1) {
    const c10::InferenceMode guard;
    ToyRank rank(setup, nullptr);
    return body(rank, 0);
  }
  EXPECT_EQ(parallel::testing::failure_of(world,
                                          [&](comm::Transport& transport) {
                                            ToyRank rank(setup, &transport);
                                            body(rank, transport.rank());
                                            EXPECT_EQ(rank.fake ? rank.fake->fault : "", "")
                                                << transport.rank();
                                          }),
            "")
      << plan::to_string(setup.config);
}

// What the first rank draws of these, one after another.
inline std::vector<at::Tensor> drawn_by_toy(const ToyRank::ToySetup& setup,
                                            std::span<const ToyRequest> requests) {
  std::vector<at::Tensor> all;
  on_toy_ranks(setup, [&](ToyRank& rank, int number) {
    for (const auto& r : requests) {
      const auto drawn = rank.draw(r);
      if (number == 0) all.push_back(drawn);
    }
  });
  return all;
}

}  // namespace atelier::pipeline
