#include "sampling/sampler.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "sampling/flow_euler.h"

namespace atelier::sampling {

std::unique_ptr<Sampler> make_sampler(const Json& config, const Call& call) {
  if (!config.is_object()) throw Error(Kind::kCheckpoint, "scheduler_config.json must hold a JSON object");
  const Json given = config.value("_class_name", Json("nothing"));
  const std::string name = given.is_string() ? given.get<std::string>() : given.dump();
  if (name == "FlowMatchEulerDiscreteScheduler") return std::make_unique<FlowEuler>(config, call);
  throw Error(Kind::kCheckpoint, str("scheduler_config.json: _class_name is ", name,
                                     "; this build has FlowMatchEulerDiscreteScheduler"));
}

at::Tensor guide(const at::Tensor& positive, const at::Tensor& negative, double scale) {
  return negative + scale * (positive - negative);
}

at::Tensor noise(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

}  // namespace atelier::sampling
