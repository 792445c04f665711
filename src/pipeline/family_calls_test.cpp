// One evaluation of a denoiser by the names of its published network's arguments, against what the
// reference's network recorded for the same inputs.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>

#include <mutex>

#include "pipeline/denoiser_call.h"
#include "pipeline/testing.h"
#include "weights/tensors.h"

namespace atelier::pipeline {
namespace fs = std::filesystem;
namespace {

using nn::distance;
using testing::HasSubstr;

struct RecordedCall {
  ModelRepo model;
  DenoiserCall call;
  at::Tensor prediction;
};

struct GoldenCase {
  fs::path folder;
  weights::Tensors seen;

  explicit GoldenCase(const char* name)
      : folder(fs::path("tests/goldens") / name),
        seen(weights::read_tensors(folder / "golden.safetensors")) {}
  const at::Tensor& at(const std::string& name) const { return seen.at(name); }
  // As the reference joins branches: what is not wanted comes first.
  at::Tensor both(const std::string& name) const {
    return at::cat({at("negative." + name), at("prompt." + name)});
  }
  RecordedCall recorded(const at::Tensor& times, models::NamedTensors inputs) const {
    auto out = at("step0.model_out");
    const auto model = ModelRepo::open(folder / "model");
    DenoiserCall call{.latents = at("step0.model_in"), .timesteps = times, .inputs = std::move(inputs)};
    const auto channels = check_call(model.family(), model.denoiser(), call, 1, 0).grid.latent_channels;
    return {model, std::move(call), out.narrow(1, 0, channels)};  // variances behind them are not used
  }
};

RecordedCall sdxl_call() {
  const GoldenCase g("sdxl_small");
  const std::string added = "step0.in.added_cond_kwargs.";
  return g.recorded(g.at("model_timesteps").narrow(0, 0, 1).repeat({2}),
                    {{"context", g.both("embeds")},
                     {"y", g.at(added + "text_embeds")},
                     {"time_ids", g.at(added + "time_ids")}});
}

// Wider than it is high, its positions are those of the model's own repository.
RecordedCall hunyuan_call() {
  const GoldenCase g("hunyuan_small");
  return g.recorded(g.at("model_timesteps").narrow(0, 0, 1).repeat({2}),
                    {{"context", g.both("embeds")},
                     {"text_embedding_mask", g.both("mask")},
                     {"encoder_hidden_states_t5", g.both("embeds_2")},
                     {"text_embedding_mask_t5", g.both("mask_2")},
                     {"image_meta_size", g.at("step0.in.image_meta_size")}});
}

// Of a square positions are the same in both; what the pipeline itself says in a step.
RecordedCall square_hunyuan_call() {
  auto r = hunyuan_call();
  SmallModel model({}, fs::path("tests/goldens/hunyuan_small/model"));
  auto requests = request_for({"a fox"}, {1});
  auto& one = requests.front();
  one.height = one.width = 32, one.num_inference_steps = 1, one.max_sequence_length = 256;
  one.guidance_scale = 1, one.guidance_is_cfg = true;
  ActivationRecorder probes;
  model.pipeline().generate(requests, {.probes = &probes});
  const auto& seen = probes.tensors();
  r.call.latents = seen.at("noise");
  r.call.timesteps = seen.at("timesteps").narrow(0, 0, 1).to(at::kFloat);
  r.call.inputs = {{"context", seen.at("prompt.embeds")},
                   {"text_embedding_mask", seen.at("prompt.mask")},
                   {"encoder_hidden_states_t5", seen.at("prompt.embeds_2")},
                   {"text_embedding_mask_t5", seen.at("prompt.mask_2")},
                   {"image_meta_size", seen.at("prompt.sizes")}};
  const auto grid = r.model.family().grid(r.model.denoiser(), 8, 32, 32, 1);
  r.prediction = r.model.family().unpack(seen.at("step0.model_out"), grid);
  return r;
}

// The first of three latent frames is given: its time is 0.
RecordedCall first_frame_call() {
  const GoldenCase g("wan_first");
  const auto time = g.at("timesteps")[0].item<float>();
  return g.recorded(at::tensor({0.f, time, time}).unsqueeze(0), {{"context", g.at("prompt.embeds")}});
}

// First and last frame, which the image encoder has seen too.
RecordedCall both_frames_call() {
  const GoldenCase g("wan_frames");
  SmallModel model({}, g.folder / "model");
  auto requests = request_for({"a fox"}, {1});
  auto& r = requests.front();
  r.image = (g.folder / "inputs/image_00.png").string();
  r.last_image = (g.folder / "inputs/last_image_00.png").string();
  r.height = 32, r.width = 16, r.num_frames = 5, r.num_inference_steps = 1, r.max_sequence_length = 512;
  r.guidance_is_cfg = true;
  ActivationRecorder probes;
  model.pipeline().generate(requests, {.probes = &probes});
  return g.recorded(g.at("timesteps").narrow(0, 0, 1).to(at::kFloat),
                    {{"context", g.at("prompt.embeds")}, {"clip_fea", probes.tensors().at("prompt.image")}});
}

at::Tensor predicted(const RecordedCall& r, const char* layout = "") {
  std::mutex mutex;
  at::Tensor out;
  on_ranks(r.model, *layout ? plan::parse_strategy(layout) : plan::ParallelConfig{}, {},
           [&](Pipeline& pipeline, int rank) {
             const auto mine = pipeline.predict(r.call, {});
             const std::scoped_lock lock(mutex);
             if (rank == 0) out = mine;
           });
  return out;
}

std::string why_refused(const RecordedCall& r) {
  try {
    check_call(r.model.family(), r.model.denoiser(), r.call, 1, 0);
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was refused";
}

// Under one rank and two, whose batch is cut or whose tokens.
void expect_recorded(const RecordedCall& r) {
  const double size = r.prediction.square().mean().sqrt().item<double>();
  for (const char* layout : {"", "ring=2", "cfg=2"})
    EXPECT_LT(distance(predicted(r, layout), r.prediction) / size, 3e-5) << layout;
}

TEST(FamilyCalls, OfSdxlIsTheReferences) {
  expect_recorded(sdxl_call());
}

TEST(FamilyCalls, OfHunyuanDitIsTheReferencesButForPositions) {
  expect_recorded(square_hunyuan_call());
  const auto r = hunyuan_call();
  EXPECT_GT(distance(predicted(r), r.prediction), 1e-4);
  EXPECT_LT(distance(predicted(r, "ring=2"), predicted(r)), 1e-5);
}

TEST(FamilyCalls, OfWanWithAGivenFrameIsTheReferences) {
  expect_recorded(first_frame_call());
}

TEST(FamilyCalls, OfWanWithFirstAndLastFrameIsTheReferences) {
  expect_recorded(both_frames_call());
}

TEST(FamilyCalls, AnSdxlCallNamesWhatItLacks) {
  for (const char* name : {"context", "y", "time_ids"}) {
    auto r = sdxl_call();
    r.call.inputs.erase(name);
    EXPECT_THAT(why_refused(r), HasSubstr(str("needs ", name)));
  }
  auto r = sdxl_call();
  r.call.inputs["control"] = r.call.latents;
  EXPECT_THAT(why_refused(r), HasSubstr("cannot take control"));
}

// Callers cut no text off; attention has no order, so that rows may change places where none is masked.
TEST(FamilyCalls, HunyuanDitReadsTextsLongerThanItsMasks) {
  auto r = hunyuan_call();
  auto& text = r.call.inputs.at("context");
  auto& mask = r.call.inputs.at("text_embedding_mask");
  const auto more = 2 * text.narrow(1, 3, 5), counts = mask.narrow(1, 0, 1).repeat({1, 5});
  const auto shorter = predicted(r);
  text = at::cat({more, text}, 1), mask = at::cat({counts, mask}, 1);
  const auto longer = predicted(r);
  EXPECT_GT(distance(longer, shorter), 1e-4);
  mask.fill_(1);
  const auto in_order = predicted(r);
  text = text.flip(1);
  EXPECT_LT(distance(predicted(r), in_order), 1e-5);
  text = text.narrow(1, 0, 70), mask = mask.narrow(1, 0, 70);
  EXPECT_THAT(why_refused(r), HasSubstr("context has 70 tokens"));
}

TEST(FamilyCalls, HunyuanDitTakesAMaskForEachToken) {
  auto r = hunyuan_call();
  auto& mask = r.call.inputs.at("text_embedding_mask_t5");
  mask = mask.narrow(1, 0, 9);
  EXPECT_THAT(why_refused(r), HasSubstr("text_embedding_mask_t5"));
}

// The table of a model of first and last frames begins with the rows of the first.
TEST(FamilyCalls, WanTakesTheStatesOfFewerPicturesThanItHasRowsFor) {
  auto r = both_frames_call();
  auto& states = r.call.inputs.at("clip_fea");
  const auto all = states;
  const auto both = predicted(r);
  states = all.narrow(1, 0, all.size(1) / 2);
  EXPECT_GT(distance(predicted(r), both), 1e-5);
  states = at::cat({all, all}, 1);
  EXPECT_THAT(why_refused(r), HasSubstr("this model takes 10 at most"));
}

// Its layers for pictures then read the text.
TEST(FamilyCalls, WanMayBeShownNoPictures) {
  auto r = both_frames_call();
  r.call.inputs.erase("clip_fea");
  auto& text = r.call.inputs.at("context");
  text = text.narrow(1, 0, 12);
  const auto in_order = predicted(r);
  EXPECT_LT(distance(predicted(r, "ring=2"), in_order), 1e-5);
  text = text.flip(1);
  EXPECT_LT(distance(predicted(r), in_order), 1e-5);
  text = 2 * text;
  EXPECT_GT(distance(predicted(r), in_order), 1e-5);
}

}  // namespace
}  // namespace atelier::pipeline
