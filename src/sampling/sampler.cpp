#include "sampling/sampler.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "sampling/flow_euler.h"

namespace atelier::sampling {

std::vector<float> times(const Sampler& sampler) {
  std::vector<float> all;
  for (const Step& step : sampler.steps()) all.push_back(step.time);
  return all;
}

bool scales_input(const Sampler& sampler) {
  const auto steps = sampler.steps();
  return std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.input_scale != 1; });
}

std::unique_ptr<Sampler> make_sampler(const Json& config, const Call& call) {
  if (!config.is_object()) throw Error(Kind::kCheckpoint, "scheduler_config.json must hold a JSON object");
  const Json given = config.value("_class_name", Json("nothing"));
  const std::string name = given.is_string() ? given.get<std::string>() : given.dump();
  if (name == "FlowMatchEulerDiscreteScheduler") return std::make_unique<FlowEuler>(config, call);
  throw Error(Kind::kCheckpoint, str("scheduler_config.json: _class_name is ", name,
                                     "; this build has FlowMatchEulerDiscreteScheduler"));
}

}  // namespace atelier::sampling
