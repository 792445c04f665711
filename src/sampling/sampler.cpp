#include "sampling/sampler.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "sampling/flow_euler.h"
#include "sampling/samplers.h"

namespace atelier::sampling {
namespace {

std::unique_ptr<Sampler> make_flow_euler(const Json& config, const Call& call) {
  return std::make_unique<FlowEuler>(config, call);
}

struct SamplerClass {
  const char* name;
  SamplerMaker make;
};

constexpr SamplerClass kClasses[] = {
    {"FlowMatchEulerDiscreteScheduler", make_flow_euler},
    {"FlowMatchHeunDiscreteScheduler", make_flow_heun},
    {"EulerDiscreteScheduler", make_euler},
    {"EulerAncestralDiscreteScheduler", make_euler_ancestral},
    {"HeunDiscreteScheduler", make_heun},
    {"DDIMScheduler", make_ddim},
    {"DDPMScheduler", make_ddpm},
    {"LCMScheduler", make_lcm},
    {"DPMSolverMultistepScheduler", make_dpm_solver},
    {"UniPCMultistepScheduler", make_unipc},
};

}  // namespace

std::vector<float> times(const Sampler& sampler) {
  std::vector<float> all;
  for (const Step& step : sampler.steps()) all.push_back(step.time);
  return all;
}

bool scales_input(const Sampler& sampler) {
  const auto steps = sampler.steps();
  return std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.input_divisor != 1; });
}

std::unique_ptr<Sampler> make_sampler(const Json& config, const Call& call) {
  if (!config.is_object()) throw Error(Kind::kCheckpoint, "scheduler_config.json must hold a JSON object");
  const Json given = config.value("_class_name", Json("nothing"));
  const std::string name = given.is_string() ? given.get<std::string>() : given.dump();
  std::string known;
  for (const auto& c : kClasses) {
    if (name == c.name) return c.make(config, call);
    known += str(known.empty() ? "" : ", ", c.name);
  }
  throw Error(Kind::kCheckpoint,
              str("scheduler_config.json: _class_name is ", name, "; this build has ", known));
}

}  // namespace atelier::sampling
