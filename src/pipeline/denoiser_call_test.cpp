#include "pipeline/denoiser_call.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <mutex>

#include "pipeline/testing.h"

namespace atelier::pipeline {
namespace {

using testing::HasSubstr;

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// A table of one step is summed in another order than one of several: float would differ in its last bits.
const LoadOptions kInDouble{.denoiser = at::kDouble};

// A call as the pipeline itself makes it in a step of the recorded model, and what the denoiser said there.
struct Recorded {
  DenoiserCall call;
  at::Tensor prediction;  // [B, C, H, W]
  nn::Conditioning conditioning;

  explicit Recorded(SmallModel& model, const std::string& prompt = "a cat") {
    const auto requests = request_for({prompt}, {7});
    ActivationRecorder probes;
    model.pipeline().generate(requests, {.probes = &probes});
    const auto& seen = probes.tensors();
    call.latents = seen.at("noise");
    call.timesteps = seen.at("timesteps").narrow(0, 0, 1) / 1000;
    call.inputs["context"] = seen.at("prompt.embeds");
    call.inputs["y"] = seen.at("prompt.pooled");
    call.inputs["guidance"] = at::full({1}, 3.5);
    const auto tokens = seen.at("step0.model_out");
    const auto repo = ModelRepo::open(kGolden / "model");
    const auto grid =
        repo.family().grid(repo.denoiser(), 8, 8 * call.latents.size(2), 8 * call.latents.size(3), 1);
    prediction = repo.family().unpack(tokens, grid);
  }
};

DenoiserCall joined(const DenoiserCall& a, const DenoiserCall& b) {
  DenoiserCall out;
  out.latents = at::cat({a.latents, b.latents});
  out.timesteps = at::cat({a.timesteps, b.timesteps});
  for (const auto& [name, value] : a.inputs) out.inputs[name] = at::cat({value, b.inputs.at(name)});
  return out;
}

std::string refusal(Pipeline& pipeline, const DenoiserCall& call) {
  try {
    pipeline.predict(call, {});
  } catch (const RequestError& e) {
    return e.what();
  }
  return "nothing was refused";
}

TEST(DenoiserCall, PredictsWhatAStepOfThePipelineDoes) {
  SmallModel model(kInDouble);
  const Recorded recorded(model);
  EXPECT_LT(distance(model.pipeline().predict(recorded.call, {}), recorded.prediction), 1e-6);
}

TEST(DenoiserCall, SamplesMayDifferInTimesAndNumbers) {
  SmallModel model(kInDouble);
  const Recorded a(model), b(model, "two dogs");
  auto other = b.call;
  other.inputs["guidance"] = at::full({1}, 1.5);
  other.timesteps = at::full({1}, 0.25);
  auto& pipeline = model.pipeline();
  const auto both = pipeline.predict(joined(a.call, other), {});
  EXPECT_LT(distance(both[0], a.prediction[0]), 1e-6);
  EXPECT_LT(distance(both[1], pipeline.predict(other, {})[0]), 1e-6);
  EXPECT_GT(distance(both[1], b.prediction[0]), 1e-3);
}

TEST(DenoiserCall, RefusesByNameAndGoesOn) {
  SmallModel model(kInDouble);
  const Recorded recorded(model);
  auto& pipeline = model.pipeline();
  auto call = recorded.call;
  call.inputs["control"] = call.latents;
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("control"));
  call = recorded.call;
  call.inputs.erase("y");
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("needs y"));
  call = recorded.call;
  call.inputs["context"] = call.inputs.at("context").narrow(2, 0, 3);
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("context"));
  call = recorded.call;
  call.latents = call.latents.narrow(1, 0, 1);
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("latents"));
  call.latents = at::zeros({0, 16, 8, 8});
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("latents of [0, 16, 8, 8]"));
  call.latents = at::zeros({});
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("latents of []"));
  for (const int expert : {-1, 1}) {
    call = recorded.call;
    call.expert = expert;
    EXPECT_THAT(refusal(pipeline, call), HasSubstr("expert " + std::to_string(expert)));
  }
  call = recorded.call;
  call.adapters = {"/nowhere/adapter.safetensors"};
  EXPECT_THAT(refusal(pipeline, call), HasSubstr("/nowhere/adapter"));
  EXPECT_LT(distance(pipeline.predict(recorded.call, {}), recorded.prediction), 1e-6);
}

TEST(DenoiserCall, EndsWhereItsCallerSaysNo) {
  SmallModel model;
  const Recorded recorded(model);
  const StepCallbacks never{.may_begin = [](int) { return false; }};
  try {
    model.pipeline().predict(recorded.call, never);
    FAIL() << "it went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kInterrupted);
  }
}

// Every layout predicts what one rank does, for one sample, an even number and an odd one.
TEST(DenoiserCall, LayoutsAgree) {
  SmallModel model;
  const Recorded a(model), b(model, "two dogs");
  const auto two = joined(a.call, b.call), three = joined(two, a.call);
  const auto want = at::cat({a.prediction, b.prediction, a.prediction});
  const auto repo = ModelRepo::open(kGolden / "model");
  for (const char* strategy : {"cfg=2", "ulysses=2", "tensor=2", "pipefusion=2, sync", "cfg=2, ulysses=2",
                               "cfg=2, pipefusion=2, sync", "cfg=2, pipefusion=2, sync, parallel_vae",
                               "ring=2, parallel_vae", "kv_gather=2"}) {
    std::mutex mutex;
    std::vector<at::Tensor> got;
    on_ranks(repo, plan::parse_strategy(strategy), {}, [&](Pipeline& pipeline, int rank) {
      std::vector<at::Tensor> mine;
      for (const auto* call : {&a.call, &two, &three}) mine.push_back(pipeline.predict(*call, {}));
      const std::scoped_lock lock(mutex);
      if (rank == 0) got = mine;
    });
    ASSERT_EQ(got.size(), 3u) << strategy;
    for (const auto& one : got)
      EXPECT_LT(distance(one, want.narrow(0, 0, one.size(0))), 1e-4) << strategy << ", " << one.size(0);
  }
}

TEST(DenoiserCall, AFamilyWithoutCallsSaysSo) {
  const auto repo = ModelRepo::open("tests/goldens/pixart_small/model");
  try {
    check_call(repo.family(), repo.denoiser(), {.latents = at::zeros({1, 4, 8, 8})}, 1, 0);
    FAIL() << "nothing was refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("family pixart was asked for"));
    EXPECT_THAT(e.what(), HasSubstr("have whole pictures drawn"));
  }
}

}  // namespace
}  // namespace atelier::pipeline
