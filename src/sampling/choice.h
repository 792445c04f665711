// Samplers by the short names that people use, instead of the one that a model's folder asks for.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::sampling {

struct SamplerChoice {
  std::string sampler;          // "euler_a", "dpmpp_2m_karras", ...; empty: the folder's
  std::optional<double> shift;  // of flow matching, fixed, instead of the folder's fixed or dynamic one
};

// Whether the model behind this scheduler_config.json follows a flow, and does not predict noise.
bool is_flow(const Json& scheduler_config);
// The name of the flow form of a sampler, where there is one: euler of such a model is flow_euler. Any other
// name as it is.
std::string form_for(const std::string& sampler, bool flow);
// The names that fit such a model.
std::vector<std::string> sampler_names(bool flow);
// The scheduler_config.json that a folder would have which asked for this choice: the noise the model was
// trained with stays, what belongs to the folder's own sampler does not. Throws Error(kUsage) for a name or a
// shift that does not fit the model.
Json chosen_config(const Json& scheduler_config, const SamplerChoice& choice);

}  // namespace atelier::sampling
