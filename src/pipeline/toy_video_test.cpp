// A family that draws videos, known to no other file: the toy family with frames, and an
// autoencoder over time.
#include <gtest/gtest.h>

#include "pipeline/testing.h"
#include "pipeline/toy_family.h"
#include "plan/parallel_config.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::has;

at::Tensor unpack(const at::Tensor& tokens, const models::Grid& grid) {
  return nn::unpack_frames_2x2(tokens, grid.frames, grid.rows, grid.cols);
}

at::Tensor coordinates(const Json& config, const models::Grid& grid, int stream, int64_t tokens) {
  if (stream != toy::kImage) return toy::coordinates(config, grid, stream, tokens);
  return nn::frame_coordinates(grid.frames, grid.rows, grid.cols);
}

models::Grid grid_of(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t frames) {
  auto grid = toy::grid(config, spatial, height, width, frames);
  grid.latent_frames = frames;
  return grid;
}

models::Family video_family() {
  models::Family f = toy::family();
  f.name = "toy_video";
  f.defaults = [](const Json&) { return models::SamplingDefaults{.frames = 5, .fps = 8}; };
  f.video = [](const Json&, const Json&) { return models::VideoTraits{.image = models::Shown::kMay}; };
  f.grid = grid_of, f.pack = nn::pack_frames_2x2, f.unpack = unpack, f.coordinates = coordinates;
  return f;
}

const ModelRepo& model() {
  static const models::Family family = video_family();
  static const ModelRepo repo = [] {
    Json configs = toy::configs();
    configs["vae"] = Json::parse(R"({"_class_name": "AutoencoderKLWan", "base_dim": 8, "z_dim": 3,
      "dim_mult": [1, 1, 2], "scale_factor_spatial": 4, "num_res_blocks": 1, "attn_scales": [], "temperal_downsample": [true, true],
      "latents_mean": [0.1, -0.2, 0.0], "latents_std": [1.1, 0.9, 1.3]})");
    return ModelRepo::random(family, configs, "toy video", 5);
  }();
  return repo;
}

std::vector<request::Request> batch_of(int frames) {
  auto batch = request_for({"a fox runs", "two boats sail"}, {3, 4});
  for (auto& r : batch) {
    r.height = 24, r.width = 32, r.max_sequence_length = 24, r.num_frames = frames;
    r.guidance_is_cfg = true, r.negative_prompt = "rain";
  }
  batch[1].fps = 24;
  return batch;
}

at::Tensor latents(const plan::ParallelConfig& layout) {
  ActivationRecorder probes;
  const auto batch = batch_of(9);
  on_ranks(model(), layout, {.denoiser = at::kDouble},
           [&](Pipeline& p, int) { p.generate(batch, {.probes = &probes}); });
  return probes.tensors().at("latents.final").to(at::kDouble);
}

TEST(ToyVideo, IsOneArtifactOfAllItsFramesAtItsOwnRate) {
  for (const int frames : {1, 5, 9}) {
    on_ranks(model(), {}, {}, [&](Pipeline& p, int) {
      const auto made = p.generate(batch_of(frames), {});
      ASSERT_EQ(made.size(), 2u);
      if (frames == 1) {
        EXPECT_TRUE(std::holds_alternative<media::Image>(made[0]));
        return;
      }
      const auto& first = std::get<media::Video>(made[0]);
      EXPECT_EQ(std::ssize(first.frames), frames);
      EXPECT_EQ(first.frames[0].width, 32);
      EXPECT_EQ(first.frames[0].height, 24);
      EXPECT_EQ(first.fps, 8);
      EXPECT_EQ(std::get<media::Video>(made[1]).fps, 24);
    });
  }
}

TEST(ToyVideo, IsTheSameOnTwoRanks) {
  const auto expected = latents({});
  for (const char* layout : {"cfg=2", "ulysses=2", "ring=2", "kv_gather=2", "tensor=2", "pipefusion=2, sync"})
    EXPECT_LT(distance(latents(plan::parse_strategy(layout)), expected), 1e-6) << layout;
}

// A dot for each latent, a frame for each of its frames.
TEST(ToyVideo, IsSeenOnItsWay) {
  std::vector<int> seen;
  on_ranks(model(), {}, {}, [&](Pipeline& p, int) {
    p.generate(batch_of(9), {.wants_preview = [](int step) { return step == 1; },
                             .on_preview =
                                 [&](int step, const auto& videos) {
                                   seen.push_back(step);
                                   ASSERT_EQ(videos.size(), 2u);
                                   const auto& video = std::get<media::Video>(videos[1]);
                                   EXPECT_EQ(video.frames.size(), 3u);
                                   EXPECT_EQ(video.frames[0].width, 8);
                                   EXPECT_EQ(video.fps, 2);
                                 }});
  });
  EXPECT_EQ(seen, std::vector<int>{1});
}

TEST(ToyVideo, HasFramesThatItsAutoencoderCounts) {
  for (const int frames : {2, 4, 8}) {
    on_ranks(model(), {}, {}, [&](Pipeline& p, int) {
      const auto why = nn::error_of(Kind::kUsage, [&] { p.generate(batch_of(frames), {}); });
      EXPECT_TRUE(has(why, str(frames, " frames were asked for"))) << why;
    });
  }
  EXPECT_EQ(model().grid(24, 32, 9).frames, 3);
}

}  // namespace
}  // namespace atelier::pipeline
