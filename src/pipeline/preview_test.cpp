// Small pictures of latents resemble what the decoder makes of them.
#include "pipeline/preview.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "pipeline/testing.h"

namespace atelier::pipeline {
namespace {

TEST(LatentPreview, FindsTheColoursOfAPictureThatItNeverSaw) {
  const c10::InferenceMode guard;
  const auto model = ModelRepo::open("models/mini");
  const auto plan = plan::plan_for({}, model.facts());
  parallel::ParallelContext context(plan, nullptr, nn::SdpaBackend::kAuto);
  const ImageStage images(model, context, {});
  const auto facts = models::find_vae(model.vae()).facts(model.vae());
  const LatentPreview preview(images, facts);
  const int64_t side = 8 * facts.spatial;
  const auto generator = at::detail::createCPUGenerator(1);
  double error = 0, spread = 0;
  for (int n = 0; n < 8; ++n) {
    // large patches of random colours
    const auto patches = at::rand({1, 3, 3, 3}, generator);
    const auto picture = at::upsample_bilinear2d(patches, {side, side}, false);
    const auto made = preview.draw(images.encode_mode(picture * 2 - 1, CodedBy::kThisRank), 0);
    const auto& small = image_of(made.at(0));
    ASSERT_EQ(small.width, 8);
    const auto wanted = (at::adaptive_avg_pool2d(picture, {8, 8})[0].permute({1, 2, 0}) * 255).contiguous();
    const double mean = wanted.mean().item<double>();
    for (size_t i = 0; i < small.rgb.size(); ++i) {
      const double value = wanted.data_ptr<float>()[i];
      error += std::abs(small.rgb[i] - value), spread += std::abs(value - mean);
    }
  }
  EXPECT_LT(error, 0.6 * spread);
}

}  // namespace
}  // namespace atelier::pipeline
