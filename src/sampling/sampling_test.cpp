// Schedules against recorded numbers and the formula, steps, guidance, and noise that depends on its seed
// only.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/std.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "nn/testing.h"
#include "sampling/flow_euler.h"
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
      EXPECT_LT(distance(numbers(sampler->timesteps()), recorded.at(dot + "timesteps")), 1e-6) << dot;
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
    EXPECT_NEAR(dynamic.timesteps()[i], 1000 * dynamic.sigmas()[i], 1e-3);
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
  for (int i = 0; i < 7; ++i) x = s.step(noise - picture, i, x);
  EXPECT_LT(distance(x, picture), 1e-6);
  const auto half = s.step(noise.to(at::kBFloat16), 0, picture.to(at::kBFloat16));
  EXPECT_EQ(half.scalar_type(), at::kBFloat16);
}

TEST(FlowMatching, RefusesWhatItCannotDo) {
  const auto refused = [](Kind kind, const Json& config, Call call) {
    return error_of(kind, [&] { make_sampler(config, call); });
  };
  EXPECT_TRUE(has(refused(Kind::kUsage, flow(), {.steps = 0}), "num_inference_steps must be at least 1"));
  EXPECT_TRUE(has(refused(Kind::kUsage, flow(kDynamic), {.steps = 4}), "token count"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, flow({{"shift", "three"}}), {.steps = 4}), "shift must be a number"));
  EXPECT_TRUE(has(refused(Kind::kCheckpoint, flow({{"use_karras_sigmas", true}}), {.steps = 4}),
                  "use_karras_sigmas"));
  EXPECT_TRUE(
      has(refused(Kind::kCheckpoint, {{"_class_name", "DDIMScheduler"}}, {.steps = 4}), "DDIMScheduler"));
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

TEST(Guidance, GoesFromTheNegativeThroughThePositive) {
  const auto p = random({4, 3}, at::kDouble, 1), n = random({4, 3}, at::kDouble, 2);
  EXPECT_LT(distance(guide(p, n, 1.0), p), 1e-14);
  EXPECT_LT(distance(guide(p, n, 0.0), n), 1e-14);
  EXPECT_LT(distance(guide(p, n, 7.5), 7.5 * p - 6.5 * n), 1e-13);
}

// The first numbers that torch.manual_seed(0); torch.randn(4, 4) prints, in four decimals.
TEST(Noise, IsWhatTheReferenceDrawsFromTheSeed) {
  const auto drawn = noise({1, 1, 4, 4}, 0).flatten();
  const float expected[] = {-1.1258f, -1.1524f, -0.2506f, -0.4339f};
  for (int64_t i = 0; i < 4; ++i) EXPECT_NEAR(drawn[i].item<float>(), expected[i], 5e-5);
}

TEST(Noise, DependsOnItsSeedOnly) {
  const auto a = noise({1, 16, 8, 8}, 7);
  at::Generator everybodys = at::globalContext().defaultGenerator(at::kCPU);
  everybodys.set_current_seed(99);
  at::randn({5});
  EXPECT_TRUE(at::equal(noise({1, 16, 8, 8}, 7), a));
  EXPECT_FALSE(at::equal(noise({1, 16, 8, 8}, 8), a));
  EXPECT_EQ(a.scalar_type(), at::kFloat);
  EXPECT_NEAR(a.mean().item<double>(), 0, 0.15);
  EXPECT_NEAR(a.std().item<double>(), 1, 0.1);
}

}  // namespace
}  // namespace atelier::sampling
