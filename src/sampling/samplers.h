// One maker for each class of scheduler_config.json. All throw Error(kCheckpoint) for an option that is not
// supported, Error(kUsage) for a call that cannot be.
#pragma once
#include <memory>

#include "sampling/sampler.h"

namespace atelier::sampling {

using SamplerMaker = std::unique_ptr<Sampler> (*)(const Json& config, const Call& call);

std::unique_ptr<Sampler> make_flow_heun(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_euler(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_euler_ancestral(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_heun(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_ddim(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_ddpm(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_lcm(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_dpm_solver(const Json& config, const Call& call);
std::unique_ptr<Sampler> make_unipc(const Json& config, const Call& call);

}  // namespace atelier::sampling
