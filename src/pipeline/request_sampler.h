// The sampler of a request: the folder's, or what the request asks for instead.
#pragma once
#include <memory>

#include "request/request.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// usual: what the pipeline says of its own. Throws Error(kUsage) for what does not fit the model or is no list of
// numbers, Error(kCheckpoint) for an option of the folder that is not supported.
std::unique_ptr<sampling::Sampler> sampler_of(const request::Request& request, const Json& scheduler_config,
                                              sampling::Call usual);

}  // namespace atelier::pipeline
