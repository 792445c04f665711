// Requests from the arguments of a diffusers call, as golden folders record it and the parity matrix lists it.
#pragma once
#include <vector>

#include "base/json.h"
#include "pipeline/model_repo.h"
#include "request/request.h"

namespace atelier::verify {

// One per prompt and num_images_per_prompt. An argument is one value for all, or a list with one per prompt;
// without a list of seeds, picture i has seed + i. What is absent comes from `defaults`. Without a negative
// prompt there is no second branch, as in diffusers. where: begins the message of Error(kUsage).
std::vector<request::Request> requests_of(const Json& call, const pipeline::ModelDefaults& defaults,
                                          const std::string& where);

}  // namespace atelier::verify
