// Every sampler along recorded paths, from a later step, per patch, by its short name, and what is refused.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "nn/testing.h"
#include "sampling/beta_quantile.h"
#include "sampling/choice.h"
#include "sampling/library_math.h"
#include "sampling/sampler.h"

namespace atelier::sampling {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;
using nn::random;

const std::string kGoldens = "tests/goldens/schedulers/";  // tests run in the root of the repository

Json stable(const char* class_name, const Json& more = Json::object()) {
  Json config{{"_class_name", class_name},        {"beta_start", 0.00085}, {"beta_end", 0.012},
              {"beta_schedule", "scaled_linear"}, {"clip_sample", false},  {"steps_offset", 1}};
  config.update(more);
  return config;
}

// One of each kind, stochastic and of higher order too.
std::vector<Json> all_kinds() {
  return {stable("EulerDiscreteScheduler"),
          stable("EulerAncestralDiscreteScheduler"),
          stable("HeunDiscreteScheduler"),
          stable("DDIMScheduler"),
          stable("DDPMScheduler"),
          stable("LCMScheduler"),
          stable("DPMSolverMultistepScheduler"),
          stable("DPMSolverMultistepScheduler", {{"algorithm_type", "sde-dpmsolver++"}, {"solver_order", 3}}),
          stable("UniPCMultistepScheduler", {{"solver_order", 3}}),
          {{"_class_name", "UniPCMultistepScheduler"},
           {"use_flow_sigmas", true},
           {"prediction_type", "flow_prediction"},
           {"flow_shift", 3.0}},
          {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"stochastic_sampling", true}},
          {{"_class_name", "FlowMatchHeunDiscreteScheduler"}, {"shift", 3.0}}};
}

std::string named(const Json& config) {
  return config.dump();
}

// From `x` with what a denoiser says that draws everything towards 0.3 of x.
at::Tensor walked(Sampler& sampler, at::Tensor x, const at::Tensor& noise, const Range& rows) {
  const auto part = [&](const at::Tensor& t) { return t.narrow(0, rows.begin, rows.size); };
  x = part(x);
  for (int i = 0; i < std::ssize(sampler.steps()); ++i) {
    const auto& step = sampler.steps()[static_cast<size_t>(i)];
    const auto drawn = step.draws_noise ? part(noise) * (1.0 + 0.1 * i) : at::Tensor();
    x = sampler.step(
        0.3 * x / static_cast<double>(step.input_divisor) + std::sin(0.01 * static_cast<double>(step.time)),
        i, x, drawn);
  }
  return x;
}

TEST(Samplers, PathsEqualTheRecordedOnes) {
  const Json golden = read_json(kGoldens + "golden.json");
  const auto recorded = weights::read_tensors(kGoldens + "golden.safetensors");
  int paths = 0;
  for (const auto& [name, spec] : golden.at("schedulers").items()) {
    const Json config = read_json(kGoldens + spec.at("config").get<std::string>());
    for (const auto& [count, said] : spec.at("set_timesteps").items()) {
      Call call{.steps = std::stoi(count), .linear_sigmas = said.contains("sigmas")};
      if (said.contains("mu")) call.mu = said["mu"].get<double>();
      const auto sampler = make_sampler(config, call);
      const std::string dot = str(name, ".", count, ".");
      EXPECT_TRUE(at::equal(at::tensor(times(*sampler)), recorded.at(dot + "timesteps")) ||
                  distance(at::tensor(times(*sampler)), recorded.at(dot + "timesteps")) < 1e-6)
          << dot;
      if (!recorded.contains(dot + "x")) continue;
      auto x = recorded.at("x0") * sampler->init_noise_sigma();
      std::vector<at::Tensor> path;
      for (int i = 0; i < std::ssize(sampler->steps()); ++i) {
        const auto& step = sampler->steps()[static_cast<size_t>(i)];
        const auto t = at::full({}, step.time, at::TensorOptions(at::kFloat));
        x = sampler->step(0.1 * (x / static_cast<double>(step.input_divisor)) + at::sin(0.01 * t), i, x,
                          step.draws_noise ? recorded.at(dot + "noise")[i] : at::Tensor());
        path.push_back(x);
      }
      EXPECT_LT(distance(at::stack(path), recorded.at(dot + "x")), 1e-5) << dot;
      ++paths;
    }
  }
  EXPECT_EQ(paths, 48);
}

TEST(Samplers, PatchesWalkAloneAsTheyDoTogether) {
  const auto x = random({7, 2, 3}, at::kFloat, 1), noise = random({7, 2, 3}, at::kFloat, 2);
  for (const auto& config : all_kinds()) {
    const auto whole = make_sampler(config, {.steps = 5});
    const auto first = whole->clone(), second = whole->clone();
    const auto parts = at::cat({walked(*first, x, noise, {0, 3}), walked(*second, x, noise, {3, 4})});
    EXPECT_TRUE(at::equal(parts, walked(*whole, x, noise, {0, 7}))) << named(config);
  }
}

TEST(Samplers, KeepNothingOfTheCallersMemory) {
  const auto start = random({4, 1, 2}, at::kFloat, 1), noise = random({4, 1, 2}, at::kFloat, 2);
  for (auto config : all_kinds()) {
    if (!is_flow(config)) config["prediction_type"] = "epsilon";
    const auto a = make_sampler(config, {.steps = 4}), b = a->clone();
    auto x = start.clone(), y = start.clone(), buffer = start.clone();
    for (int i = 0; i < std::ssize(a->steps()); ++i) {
      const auto drawn = a->steps()[static_cast<size_t>(i)].draws_noise ? noise : at::Tensor();
      x = a->step(0.2 * x, i, x, drawn);
      buffer.copy_(0.2 * y);
      y.copy_(b->step(buffer, i, y, drawn));
    }
    EXPECT_TRUE(at::equal(x, y)) << named(config);
  }
}

TEST(Samplers, BeginLaterWithTheSameSteps) {
  const auto picture = random({4, 1, 2}, at::kFloat, 1), noise = random({4, 1, 2}, at::kFloat, 2);
  for (const auto& config : all_kinds()) {
    const auto whole = make_sampler(config, {.steps = 6}),
               late = make_sampler(config, {.steps = 6, .begin = 2});
    const auto skipped = whole->steps().size() - late->steps().size();
    EXPECT_EQ(skipped, whole->steps().size() == 11 ? 4u : 2u) << named(config);
    for (size_t i = 0; i < late->steps().size(); ++i) {
      EXPECT_EQ(late->steps()[i].time, whole->steps()[i + skipped].time);
      EXPECT_EQ(late->sigmas()[i], whole->sigmas()[i + skipped]);
    }
    const auto noisy = late->add_noise(picture, noise, 0);
    EXPECT_TRUE(at::equal(noisy, whole->add_noise(picture, noise, static_cast<int>(skipped))))
        << named(config);
    const auto at_end = late->add_noise(picture, noise, static_cast<int>(late->steps().size()));
    EXPECT_TRUE(at::equal(at_end, picture)) << named(config);
    EXPECT_TRUE(
        has(error_of(Kind::kUsage, [&] { make_sampler(config, {.steps = 6, .begin = 6}); }), "at least one"));
  }
}

// x = sqrt(a) picture + sqrt(1 - a) noise; the first step of so many goes down to the picture if
// it is foretold.
TEST(Samplers, ComeBackToThePictureThatIsForetold) {
  const auto picture = random({5, 1, 2}, at::kFloat, 1), noise = random({5, 1, 2}, at::kFloat, 2);
  for (auto config : all_kinds()) {
    const std::string name = config["_class_name"];
    const bool flow = is_flow(config), ancestral = name == "EulerAncestralDiscreteScheduler";
    if (!flow && !ancestral) config["prediction_type"] = "sample";
    config["set_alpha_to_one"] = true;
    const auto s = make_sampler(config, {.steps = 4, .begin = 1});
    auto x = s->add_noise(picture, noise, 0);
    for (int i = 0; i < std::ssize(s->steps()); ++i) {
      const auto k = static_cast<size_t>(i);
      const auto sigma = static_cast<double>(s->sigmas()[k]);
      const auto foretold = flow || ancestral ? (x - picture) / sigma : picture;
      x = s->step(foretold, i, x, s->steps()[k].draws_noise ? noise : at::Tensor());
    }
    EXPECT_LT(distance(x, picture), name == "LCMScheduler" ? 1e-3 : 2e-4) << named(config);
  }
}

TEST(Samplers, TakeStepsByHand) {
  const auto euler = make_sampler(stable("EulerDiscreteScheduler"), {.sigmas = {14.6, 2.0, 0.5, 0.0}});
  EXPECT_EQ(euler->steps().size(), 3u);
  EXPECT_EQ(euler->sigmas()[1], 2.0f);
  // diffusers 0.39.0, whose arithmetic is that of the given sigmas: float.
  const auto exact = make_sampler(stable("EulerDiscreteScheduler"), {.sigmas = {10.0, 3.0, 0.5}});
  EXPECT_EQ(times(*exact), (std::vector<float>{933.5067138671875f, 673.1553344726562f}));
  const auto ddpm = make_sampler(stable("DDPMScheduler"), {.timesteps = {900, 400, 0}});
  EXPECT_EQ(times(*ddpm), (std::vector<float>{900, 400, 0}));
  EXPECT_FALSE(ddpm->steps()[2].draws_noise);
  const auto refused = [](const Json& config, const Call& call) {
    return error_of(Kind::kUsage, [&] { make_sampler(config, call); });
  };
  EXPECT_TRUE(has(refused(stable("DDPMScheduler"), {.timesteps = {400, 900}}), "must fall"));
  EXPECT_TRUE(has(refused(stable("DDIMScheduler"), {.sigmas = {1, 0}}), "DDIM takes a number of steps"));
  EXPECT_TRUE(has(refused(stable("DDIMScheduler"), {.steps = 1001}), "at most 1000"));
  EXPECT_TRUE(has(refused(stable("LCMScheduler"), {.steps = 51}), "at most 50"));
}

TEST(Samplers, RefuseOptionsByName) {
  const auto refused = [](const char* name, const Json& more) {
    return error_of(Kind::kCheckpoint, [&] { make_sampler(stable(name, more), {.steps = 4}); });
  };
  for (const char* name : {"DDIMScheduler", "DDPMScheduler", "LCMScheduler", "DPMSolverMultistepScheduler",
                           "UniPCMultistepScheduler"}) {
    EXPECT_TRUE(has(refused(name, {{"thresholding", true}}), "thresholding")) << name;
    EXPECT_TRUE(has(refused(name, {{"prediction_type", "guess"}}), "prediction_type must be epsilon"))
        << name;
    EXPECT_TRUE(has(refused(name, {{"beta_schedule", "exp"}}), "beta_schedule must be linear")) << name;
  }
  EXPECT_TRUE(has(refused("DDPMScheduler", {{"variance_type", "learned_range"}}), "variance_type"));
  EXPECT_TRUE(
      has(refused("DPMSolverMultistepScheduler", {{"solver_order", 4}}), "solver_order must be from 1 to 3"));
  EXPECT_TRUE(
      has(refused("DPMSolverMultistepScheduler", {{"algorithm_type", "dpmsolver"}}), "final_sigmas_type"));
  EXPECT_TRUE(has(refused("UniPCMultistepScheduler", {{"solver_p", {{"a", 1}}}}), "solver_p"));
  EXPECT_TRUE(has(refused("UniPCMultistepScheduler", {{"use_flow_sigmas", true}, {"use_beta_sigmas", true}}),
                  "use_flow_sigmas"));
  EXPECT_TRUE(
      has(refused("EulerDiscreteScheduler", {{"timestep_spacing", "odd"}}), "linspace, leading or trailing"));
  EXPECT_TRUE(
      has(refused("EulerDiscreteScheduler", {{"trained_betas", {0.1, 0.2}}}), "trained_betas holds 2"));
  EXPECT_TRUE(
      has(refused("EulerDiscreteScheduler", {{"beta_start", -0.5}}), "beta_start must be at least 0"));
  EXPECT_TRUE(has(refused("EulerDiscreteScheduler", {{"beta_end", 1.5}}), "beta_end must be"));
  EXPECT_TRUE(has(refused("DDIMScheduler", {{"timestep_spacing", "leading"}, {"steps_offset", -500}}),
                  "steps_offset must be from 0"));
  EXPECT_TRUE(has(refused("EulerDiscreteScheduler", {{"beta_start", "NaN"}}), "beta_start must be a number"));
  // Python writes the default of this one as -Infinity
  EXPECT_EQ(refused("DPMSolverMultistepScheduler", {{"lambda_min_clipped", "-Infinity"}}), "no error");
  EXPECT_TRUE(
      has(refused("DPMSolverMultistepScheduler", {{"lambda_min_clipped", "Infinity"}}), "no timestep"));
  EXPECT_EQ(refused("EulerDiscreteScheduler", {{"skip_prk_steps", true}, {"thresholding", true}}), "no error")
      << "keys that the class does not read";
}

TEST(Samplers, AreChosenByTheirShortNames) {
  const Json noise =
      stable("EulerDiscreteScheduler", {{"use_karras_sigmas", true}, {"timestep_spacing", "leading"}});
  const Json flow{{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}};
  for (const bool is_flow_model : {false, true}) {
    const Json& folder = is_flow_model ? flow : noise;
    for (const auto& name : sampler_names(is_flow_model)) {
      EXPECT_FALSE(make_sampler(chosen_config(folder, {.sampler = name}), {.steps = 5})->steps().empty())
          << name;
    }
  }
  const auto plain = make_sampler(chosen_config(noise, {.sampler = "euler"}), {.steps = 5});
  EXPECT_NE(plain->sigmas()[2], make_sampler(noise, {.steps = 5})->sigmas()[2])
      << "no curve without its suffix";
  const auto karras = make_sampler(chosen_config(noise, {.sampler = "euler_karras"}), {.steps = 5});
  EXPECT_EQ(karras->sigmas()[2], make_sampler(noise, {.steps = 5})->sigmas()[2]);
  EXPECT_EQ(chosen_config(noise, {.sampler = "dpmpp_2m_sde"})["algorithm_type"], "sde-dpmsolver++");
  EXPECT_EQ(chosen_config(noise, {.sampler = "heun"})["beta_end"], 0.012);
  EXPECT_EQ(chosen_config({{"_class_name", "LCMScheduler"}}, {.sampler = "ddim"})["beta_schedule"],
            "scaled_linear");
  EXPECT_EQ(chosen_config(flow, {.sampler = "unipc"})["flow_shift"], 3.0);
  EXPECT_EQ(chosen_config(flow, {.sampler = "unipc", .shift = 5.0})["flow_shift"], 5.0);
  EXPECT_EQ(chosen_config(noise, {}), noise);
}

// As people type them who know only what a sampler does.
TEST(Samplers, HaveFormsForModelsThatFollowAFlow) {
  const Json flow{
      {"_class_name", "UniPCMultistepScheduler"}, {"flow_shift", 3.0}, {"use_flow_sigmas", true},
      {"prediction_type", "flow_prediction"},     {"solver_order", 2}, {"num_train_timesteps", 1000}};
  for (const auto& [name, form] : {std::pair{"euler", "flow_euler"},
                                   {"euler_beta", "flow_euler_beta"},
                                   {"heun", "flow_heun"},
                                   {"lcm", "flow_lcm"}}) {
    EXPECT_EQ(form_for(name, true), form);
    EXPECT_EQ(form_for(name, false), name);
    EXPECT_EQ(chosen_config(flow, {.sampler = name}), chosen_config(flow, {.sampler = form})) << name;
  }
  for (const char* as_it_is : {"unipc", "dpmpp_2m", "dpmpp_2m_sde", "flow_euler", "euler_a", "ddim", "none"})
    EXPECT_EQ(form_for(as_it_is, true), as_it_is);
  EXPECT_EQ(chosen_config(flow, {.sampler = "euler"})["shift"], 3.0);
  EXPECT_TRUE(make_sampler(chosen_config(flow, {.sampler = "lcm"}), {.steps = 4})->steps()[0].draws_noise);
}

TEST(Samplers, ThatDoNotFitTheModelAreRefusedWithThoseThatDo) {
  const Json noise = stable("DDPMScheduler"), flow{{"_class_name", "FlowMatchHeunDiscreteScheduler"}};
  const auto refused = [](const Json& config, const SamplerChoice& choice) {
    return error_of(Kind::kUsage, [&] { chosen_config(config, choice); });
  };
  const auto euler = refused(flow, {.sampler = "euler_a"});
  EXPECT_TRUE(has(euler, "euler_a is for models that predict noise") && has(euler, "flow_euler, ")) << euler;
  EXPECT_TRUE(has(refused(flow, {.sampler = "unipc_karras"}), "predict noise"));
  EXPECT_TRUE(has(refused(noise, {.sampler = "flow_heun"}), "follow a flow"));
  EXPECT_TRUE(has(refused(noise, {.sampler = "eulr"}), "did you mean euler"));
  EXPECT_TRUE(has(refused(noise, {.shift = 3.0}), "scheduler_shift 3"));
  Json dynamic{{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"use_dynamic_shifting", true}};
  const auto fixed =
      make_sampler(chosen_config(dynamic, {.shift = 3.0}), {.steps = 4, .linear_sigmas = true});
  EXPECT_NEAR(fixed->sigmas()[2], 3 * 0.5 / (1 + 2 * 0.5), 1e-6);
}

TEST(Samplers, TakeLogarithmsAsNumpyRoundsThem) {
  for (const auto& [x, log] : {std::pair{19.7670193f, 0x1.7df434p+1f},
                               {0.873864949f, -0x1.142176p-3f},
                               {963.907898f, 0x1.b7be66p+2f},
                               {0.707106829f, -0x1.62e42ap-2f},
                               {1e-30f, -0x1.144f6ap+6f},
                               {1.0f, 0.0f}})
    EXPECT_EQ(numpy_log(x), log) << x;
  const Json config =
      stable("DPMSolverMultistepScheduler", {{"use_exponential_sigmas", true}, {"num_train_timesteps", 500}});
  EXPECT_EQ(times(*make_sampler(config, {.steps = 4})).front(), 498)
      << "the first sigma is the largest, whose rounded logarithm lies above";
}

// arcsine: share below x is 2 / pi * asin(sqrt(x)); uniform; and scipy.stats.beta.ppf(0.1, 0.6, 0.6).
TEST(BetaQuantile, InvertsTheDistribution) {
  for (const double p : {0.0, 0.01, 0.3, 0.5, 0.9, 1.0}) {
    const double s = std::sin(p * 1.5707963267948966);
    EXPECT_NEAR(beta_quantile(p, 0.5, 0.5), s * s, 1e-12) << p;
    EXPECT_NEAR(beta_quantile(p, 1, 1), p, 1e-12) << p;
    EXPECT_NEAR(beta_quantile(p, 0.6, 0.6), 1 - beta_quantile(1 - p, 0.6, 0.6), 1e-12) << p;
  }
  EXPECT_NEAR(beta_quantile(0.1, 0.6, 0.6), 0.03958440558878085, 1e-12);
}

}  // namespace
}  // namespace atelier::sampling
