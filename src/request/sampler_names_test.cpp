// Names that users of other tools type.
#include "request/sampler_names.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "request/request.h"

namespace atelier::request {
namespace {

TEST(SamplerNames, OfOtherToolsAreUnderstood) {
  for (const auto& [word, name] : {std::pair{"euler", "euler"},
                                   {"euler_ancestral", "euler_a"},
                                   {"uni_pc", "unipc"},
                                   {"uni_pc_bh2", "unipc"},
                                   {"unipc/beta", "unipc_beta"},
                                   {"dpm++", "dpmpp_2m"},
                                   {"dpm++_sde", "dpmpp_2m_sde"},
                                   {"dpm++ 2m karras", "dpmpp_2m_karras"},
                                   {"dpmpp_2m_sde_gpu", "dpmpp_2m_sde"},
                                   {"unipcmultistepscheduler", "unipc"},
                                   {"flowmatcheulerdiscretescheduler", "flow_euler"},
                                   {"dpmpp_sde", "dpmpp_sde"},
                                   {"nothing", "nothing"}})
    EXPECT_EQ(sampler_named(word), name);
}

TEST(SamplerNames, AreFieldsOfARequest) {
  const auto of = [](const std::string& word) {
    Request r;
    r.fields([&](const Field& field, const FieldRef& slot) {
      if (field.name == "sampler") set_from_text(field, slot, {word}, "--sampler");
    });
    return r.sampler.value_or("");
  };
  EXPECT_EQ(of("DPM++ 2M Karras"), "dpmpp_2m_karras");
  EXPECT_EQ(of("UniPCMultistepScheduler"), "unipc");
  EXPECT_THROW(of("dpmpp_sde"), Error);
}

}  // namespace
}  // namespace atelier::request
