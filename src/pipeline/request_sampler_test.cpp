// What a request says of its sampler reaches it.
#include "pipeline/request_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/field.h"
#include "nn/testing.h"
#include "sampling/choice.h"

namespace atelier::pipeline {
namespace {

using nn::error_of;
using nn::has;

const Json kFlow{{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", 3.0}};

TEST(RequestSampler, NamesAreThoseThatThereAre) {
  std::vector<std::string> listed;
  request::Request r;
  r.fields([&](const Field& field, const FieldRef&) {
    if (field.name == "sampler") listed = words_of(field.choices);
  });
  auto known = sampling::sampler_names(true);
  for (const auto& name : sampling::sampler_names(false)) {
    if (std::find(known.begin(), known.end(), name) == known.end()) known.push_back(name);
  }
  std::sort(listed.begin(), listed.end());
  std::sort(known.begin(), known.end());
  EXPECT_EQ(listed, known);
}

TEST(RequestSampler, TakesWhatTheRequestSays) {
  request::Request r;
  r.num_inference_steps = 4;
  EXPECT_EQ(sampler_of(r, kFlow, {})->steps().size(), 4u);
  r.sampler = "flow_heun";
  EXPECT_EQ(sampler_of(r, kFlow, {})->steps().size(), 7u);
  r.sampler.reset(), r.scheduler_shift = 1.0, r.sigmas = "1.0, 0.5,0.25";
  const auto by_hand = sampler_of(r, kFlow, {});
  ASSERT_EQ(by_hand->sigmas().size(), 4u);
  EXPECT_EQ(by_hand->sigmas()[1], 0.5f);
}

TEST(RequestSampler, HasTheNameOfItsFormForTheModel) {
  request::Request r;
  EXPECT_EQ(settle_sampler(r, kFlow), "");
  r.sampler = "euler";
  EXPECT_EQ(settle_sampler(r, {{"_class_name", "DDIMScheduler"}}), "");
  EXPECT_EQ(settle_sampler(r, kFlow), "sampler euler is flow_euler here: the model follows a flow");
  EXPECT_EQ(r.sampler, "flow_euler");
}

TEST(RequestSampler, RefusesWhatIsNoListOrDoesNotFit) {
  request::Request r;
  r.num_inference_steps = 4, r.sigmas = "1.0,half";
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { sampler_of(r, kFlow, {}); }), "sigmas must be numbers"));
  r.sigmas = "1.0,0.5", r.timesteps = "900,500";
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { sampler_of(r, kFlow, {}); }), "give one of them"));
  r.timesteps.reset();
  r.sigmas.reset(), r.sampler = "ddim";
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { sampler_of(r, kFlow, {}); }), "flow_euler"));
}

}  // namespace
}  // namespace atelier::pipeline
