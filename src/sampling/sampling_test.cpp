// Schedules against recorded numbers and the formula, steps, guidance, and noise that depends on its seed
// only.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/std.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "nn/testing.h"
#include "sampling/flow_euler.h"
#include "sampling/guidance.h"
#include "sampling/noise.h"
#include "sampling/sampler.h"

namespace atelier::sampling {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;
using nn::random;

const char* const kGoldens = "tests/goldens/schedulers";  // tests run in the root of the repository

at::Tensor numbers(std::span<const float> v) {
  return at::tensor(at::ArrayRef<float>(v.data(), v.size()));
}

Json flow(const Json& more = {}) {
  Json config{{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"num_train_timesteps", 1000}};
  if (more.is_object()) config.update(more);
  return config;
}

const Json kDynamic{{"use_dynamic_shifting", true},
                    {"shift", 3.0},
                    {"base_shift", 0.5},
                    {"max_shift", 1.15},
                    {"base_image_seq_len", 256},
                    {"max_image_seq_len", 4096}};

TEST(FlowMatching, GivenSigmasAreShiftedInFloat) {
  const auto sampler = make_sampler(flow({{"shift", 3.0}}), {.steps = 7, .linear_sigmas = true});
  const std::vector<float> numpys{
      1, 0x1.e50d78p-1f, 0x1.c3c3c2p-1f, 0x1.99999cp-1f, 0x1.627626p-1f, 0x1.1745d4p-1f, 0x1.555558p-2f, 0};
  EXPECT_EQ(std::vector<float>(sampler->sigmas().begin(), sampler->sigmas().end()), numpys);
}

TEST(FlowMatching, SchedulesEqualTheRecordedOnes) {
  const Json golden = read_json(std::string(kGoldens) + "/golden.json");
  const auto recorded = weights::read_tensors(std::string(kGoldens) + "/golden.safetensors");
  int compared = 0;
  for (const auto& [name, spec] : golden.at("schedulers").items()) {
    if (!name.starts_with("flow_")) continue;
    const Json config = read_json(std::string(kGoldens) + "/" + spec.at("config").get<std::string>());
    for (const auto& [count, call] : spec.at("set_timesteps").items()) {
      Call c{.steps = std::stoi(count), .linear_sigmas = call.contains("sigmas")};
      if (const auto at = name.find("seq"); at != std::string::npos)
        c.tokens = std::stoll(name.substr(at + 3));
      const auto sampler = make_sampler(config, c);
      const std::string dot = str(name, ".", count, ".");
      EXPECT_LT(distance(numbers(times(*sampler)), recorded.at(dot + "timesteps")), 1e-6) << dot;
      EXPECT_LT(distance(numbers(sampler->sigmas()), recorded.at(dot + "sigmas")), 1e-6) << dot;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 20);
}

// The shift of SD3's equation 23, and its exponential form with mu linear in the number of tokens.
TEST(FlowMatching, ShiftsFollowTheirFormulas) {
  const FlowEuler fixed(flow({{"shift", 3.0}}), {.steps = 5, .linear_sigmas = true});
  for (int i = 0; i < 5; ++i) {
    const double t = 1 - 0.2 * i;
    EXPECT_NEAR(fixed.sigmas()[static_cast<size_t>(i)], 3 * t / (1 + 2 * t), 1e-6);
  }
  EXPECT_EQ(fixed.sigmas()[5], 0);
  const double mu = 0.5 + (1.15 - 0.5) * (1024.0 - 256.0) / (4096.0 - 256.0);
  const FlowEuler dynamic(flow(kDynamic), {.steps = 5, .linear_sigmas = true, .tokens = 1024});
  const FlowEuler told(flow(kDynamic), {.steps = 5, .linear_sigmas = true, .mu = mu});
  for (size_t i = 0; i < 5; ++i) {
    const double t = 1 - 0.2 * static_cast<double>(i);
    EXPECT_NEAR(dynamic.sigmas()[i], std::exp(mu) * t / (std::exp(mu) * t + 1 - t), 1e-6);
    EXPECT_NEAR(dynamic.steps()[i].time, 1000 * dynamic.sigmas()[i], 1e-3);
    EXPECT_FLOAT_EQ(dynamic.sigmas()[i], told.sigmas()[i]);
  }
}

TEST(FlowMatching, MoreTokensMeanMoreNoiseBeyondTheTrainedRangeToo) {
  double before = 0;
  for (const int64_t tokens : {16, 256, 1024, 4096, 16384}) {
    const FlowEuler s(flow(kDynamic), {.steps = 4, .linear_sigmas = true, .tokens = tokens});
    EXPECT_GT(s.sigmas()[2], before) << tokens;
    before = s.sigmas()[2];
  }
}

TEST(FlowMatching, ATerminalShiftEndsThere) {
  const FlowEuler s(flow({{"shift_terminal", 0.1}, {"shift", 3.0}}), {.steps = 6, .linear_sigmas = true});
  EXPECT_NEAR(s.sigmas()[5], 0.1, 1e-6);
  EXPECT_NEAR(s.sigmas()[0], 1.0, 1e-6);
}

TEST(FlowMatching, EulerStepsAlongAStraightLineArriveAtTheEnd) {
  FlowEuler s(flow(kDynamic), {.steps = 7, .linear_sigmas = true, .tokens = 300});
  const auto noise = random({9, 2, 4}, at::kDouble, 1), picture = random({9, 2, 4}, at::kDouble, 2);
  auto x = noise;
  for (int i = 0; i < 7; ++i) x = s.step(noise - picture, i, x, {});
  EXPECT_LT(distance(x, picture), 1e-6);
  const auto half = s.step(noise.to(at::kBFloat16), 0, picture.to(at::kBFloat16), {});
  EXPECT_EQ(half.scalar_type(), at::kBFloat16);
}

TEST(FlowMatching, RefusesWhatItCannotDo) {
  const auto refused = [](Kind kind, const Json& config, Call call) {
    return error_of(kind, [&] { make_sampler(config, call); });
  };
  EXPECT_TRUE(has(refused(Kind::kUsage, flow(), {.steps = 0}), "num_inference_steps must be at least 1"));
  EXPECT_TRUE(has(refused(Kind::kUsage, flow(kDynamic), {.steps = 4}), "token count"));
  EXPECT_TRUE(has(refused(Kind::kUsage, flow(), {.timesteps = {1e300, 500}}),
                  "timesteps of flow matching lie above 0 and up to 1000"));
  EXPECT_TRUE(has(refused(Kind::kUsage, flow(), {.sigmas = {3, 0.5}}),
                  "sigmas of flow matching lie above 0 and up to 1, found 3"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, flow({{"shift", "three"}}), {.steps = 4}), "shift must be a number"));
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, flow({{"use_karras_sigmas", true}, {"use_beta_sigmas", true}}),
                          {.steps = 4}),
                  "use_karras_sigmas"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, {{"_class_name", "PNDMScheduler"}}, {.steps = 4}), "PNDMScheduler"));
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, flow({{"shift", 0}}), {.steps = 4}), "shift must be above 0"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, flow({{"use_dynamic_shifting", true}, {"base_image_seq_len", 4096}}),
                  {.steps = 4, .tokens = 64}),
          "base_image_seq_len and max_image_seq_len"));
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, Json::array({1}), {.steps = 4}), "scheduler_config.json"));
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, {{"_class_name", 5}}, {.steps = 4}), "scheduler_config.json"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, flow({{"time_shift_type", 3}}), {.steps = 4}), "time_shift_type"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, flow({{"time_shift_type", "cubic"}}), {.steps = 4}), "time_shift_type"));
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, flow({{"use_dynamic_shifting", "yes"}}), {.steps = 4}),
                  "use_dynamic_shifting"));
}

TEST(FlowMatching, ACloneIsASamplerOfItsOwn) {
  const FlowEuler s(flow(), {.steps = 3, .linear_sigmas = true});
  const auto copy = s.clone();
  EXPECT_TRUE(at::equal(numbers(copy->sigmas()), numbers(s.sigmas())));
  EXPECT_NE(copy->sigmas().data(), s.sigmas().data());
}

at::Tensor guided(double scale, double rescale, const at::Tensor& positive, const at::Tensor& negative,
                  nn::Reducer* positions = nullptr) {
  const at::Tensor branches[] = {positive, negative};
  return guide({scale, rescale}, branches, positions);
}

TEST(Guidance, GoesFromTheNegativeThroughThePositive) {
  const auto p = random({4, 1, 3}, at::kDouble, 1), n = random({4, 1, 3}, at::kDouble, 2);
  EXPECT_LT(distance(guided(1.0, 0, p, n), p), 1e-14);
  EXPECT_LT(distance(guided(0.0, 0, p, n), n), 1e-14);
  EXPECT_LT(distance(guided(7.5, 0, p, n), 7.5 * p - 6.5 * n), 1e-13);
  EXPECT_TRUE(guide({7.5, 0.5}, std::span(&p, 1), nullptr).is_same(p)) << "one branch is its own result";
}

// Lin et al., equations 15 and 16, as diffusers' rescale_noise_cfg spells them.
at::Tensor rescaled_by_formula(double scale, double share, const at::Tensor& p, const at::Tensor& n) {
  const auto cfg = n + scale * (p - n);
  const auto std_of = [](const at::Tensor& x) { return at::std(x, at::IntArrayRef{0, 2}, true, true); };
  return share * (cfg * (std_of(p) / std_of(cfg))) + (1 - share) * cfg;
}

TEST(Guidance, RescalesEachImageToTheDeviationOfItsPositivePrediction) {
  const auto p =
      random({11, 3, 4}, at::kDouble, 1) * at::tensor({0.5, 1.0, 3.0}, at::kDouble).view({1, 3, 1}) + 0.3;
  const auto n = random({11, 3, 4}, at::kDouble, 2) - 0.1;
  for (const double share : {0.25, 0.7, 1.0}) {
    EXPECT_LT(distance(guided(7.5, share, p, n), rescaled_by_formula(7.5, share, p, n)), 1e-12) << share;
  }
  const auto full = guided(7.5, 1, p, n);
  for (int64_t b = 0; b < 3; ++b) {
    EXPECT_NEAR(at::std(full.select(1, b)).item<double>(), at::std(p.select(1, b)).item<double>(), 1e-12);
  }
  const auto narrow = guided(7.5, 0.7, p.to(at::kFloat), n.to(at::kFloat));
  EXPECT_EQ(narrow.scalar_type(), at::kFloat);
  EXPECT_LT(distance(narrow, guided(7.5, 0.7, p, n)), 1e-6);
}

// Threads that sum as ranks do: everybody adds, everybody reads.
class ThreadSum : public nn::Reducer {
 public:
  explicit ThreadSum(int ranks) : added_(ranks), read_(ranks) {}
  void sum(at::Tensor& value) override {
    {
      const std::scoped_lock lock(mutex_);
      total_ = total_.defined() ? total_ + value : value.clone();
    }
    added_.arrive_and_wait();
    value.copy_(total_);
    read_.arrive_and_wait();
  }

 private:
  std::mutex mutex_;
  at::Tensor total_;
  std::barrier<> added_, read_;
};

TEST(Guidance, RescalesOverTheWholeLatentWhereverItsTokensLie) {
  const auto p = random({13, 2, 4}, at::kDouble, 1) + 1, n = random({13, 2, 4}, at::kDouble, 2);
  const auto whole = guided(5, 0.7, p, n);
  for (const int ranks : {2, 3, 15}) {  // with 15, two hold nothing
    ThreadSum positions(ranks);
    std::vector<at::Tensor> parts(static_cast<size_t>(ranks));
    std::vector<std::jthread> threads;
    for (int r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        const Range mine = Partition{13, ranks}[r];
        parts[static_cast<size_t>(r)] = guided(5, 0.7, p.narrow(0, mine.begin, mine.size),
                                               n.narrow(0, mine.begin, mine.size), &positions);
      });
    }
    threads.clear();
    EXPECT_LT(distance(at::cat(parts), whole), 1e-12) << ranks;
  }
  const auto alone = guided(5, 0.7, p.narrow(0, 0, 4), n.narrow(0, 0, 4));
  EXPECT_GT(distance(alone, whole.narrow(0, 0, 4)), 1e-3) << "a part's own deviation is another";
}

// The first numbers that torch.manual_seed(0); torch.randn(4, 4) prints, in four decimals.
TEST(Noise, IsWhatTheReferenceDrawsFromTheSeed) {
  const uint64_t seeds[] = {0};
  const auto drawn = NoiseSource(seeds, {1, 1, 4, 4}).draw(NoiseSource::kInitial).flatten();
  const float expected[] = {-1.1258f, -1.1524f, -0.2506f, -0.4339f};
  for (int64_t i = 0; i < 4; ++i) EXPECT_NEAR(drawn[i].item<float>(), expected[i], 5e-5);
}

TEST(Noise, DependsOnItsSeedOnly) {
  const uint64_t seven[] = {7}, both[] = {8, 7};
  const auto a = NoiseSource(seven, {1, 16, 8, 8}).draw(NoiseSource::kInitial);
  at::Generator everybodys = at::globalContext().defaultGenerator(at::kCPU);
  everybodys.set_current_seed(99);
  at::randn({5});
  const auto pair = NoiseSource(both, {1, 16, 8, 8}).draw(NoiseSource::kInitial);
  EXPECT_TRUE(at::equal(pair.narrow(0, 1, 1), a)) << "whatever else is in the batch";
  EXPECT_FALSE(at::equal(pair.narrow(0, 0, 1), a));
  EXPECT_EQ(a.scalar_type(), at::kFloat);
  EXPECT_NEAR(a.mean().item<double>(), 0, 0.15);
  EXPECT_NEAR(a.std().item<double>(), 1, 0.1);
}

TEST(Noise, ComesInTheOrderOfAnEdit) {
  const uint64_t seeds[] = {3};
  NoiseSource source(seeds, {1, 4, 2, 2});
  auto generator = at::detail::createCPUGenerator(3);
  for (const int which : {NoiseSource::kPicture, NoiseSource::kInitial, NoiseSource::kMasked, 0, 1})
    EXPECT_TRUE(at::equal(source.draw(which), at::randn({1, 4, 2, 2}, generator))) << which;
}

TEST(Noise, OfAStepIsTheNextThatTheGeneratorDraws) {
  const uint64_t seeds[] = {3, 4};
  NoiseSource source(seeds, {1, 4, 6, 6});
  const auto initial = source.draw(NoiseSource::kInitial), first = source.draw(0), second = source.draw(5);
  EXPECT_TRUE(at::equal(source.draw(5), second)) << "patches of one step take theirs one after another";
  EXPECT_FALSE(at::equal(first, second));
  for (int64_t b = 0; b < 2; ++b) {
    auto generator = at::detail::createCPUGenerator(seeds[b]);
    for (const auto& drawn : {initial, first, second}) {
      EXPECT_TRUE(at::equal(at::randn({1, 4, 6, 6}, generator), drawn.narrow(0, b, 1)));
    }
  }
}

}  // namespace
}  // namespace atelier::sampling
