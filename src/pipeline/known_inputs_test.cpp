// Fields that a model has no input for.
#include "pipeline/known_inputs.h"

#include <gtest/gtest.h>

#include "nn/testing.h"

namespace atelier::pipeline {
namespace {

using nn::has;

std::string problem_of(const char* preset, const request::Request& r) {
  return size_conditions_problem(r, ModelRepo::dummy(preset, 1));
}

TEST(KnownInputs, SizesOfPhotographsAreOfModelsThatReadThem) {
  request::Request one, both;
  one.original_size = {64, 48};
  both.negative_original_size = {64, 48};
  for (const auto* r : {&one, &both}) {
    EXPECT_EQ(problem_of("stable-diffusion-xl-base-1.0", *r), "");
    EXPECT_TRUE(has(problem_of("FLUX.1-schnell", *r), "flux has no sizes"));
    EXPECT_TRUE(has(problem_of("HunyuanDiT-v1.2-Diffusers", *r), "HunyuanDiT-v1.2-Diffusers"));
  }
  EXPECT_EQ(problem_of("HunyuanDiT-v1.1-Diffusers", one), "");
  EXPECT_TRUE(has(problem_of("HunyuanDiT-v1.1-Diffusers", both), "for both branches, as original_size"));
  EXPECT_EQ(problem_of("FLUX.1-schnell", {}), "");
}

// A call of the reference may say what the model does not read, as the reference then ignores it too.
TEST(KnownInputs, SizesInACallAreThoseThatItsPipelineTakes) {
  request::Request r;
  r.target_size = {64, 48};
  EXPECT_EQ(size_inputs_problem(r, ModelRepo::dummy("HunyuanDiT-v1.2-Diffusers", 1).family()), "");
  EXPECT_TRUE(has(size_inputs_problem(r, ModelRepo::dummy("FLUX.1-schnell", 1).family()), "target_size"));
}

}  // namespace
}  // namespace atelier::pipeline
