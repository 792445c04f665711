// The sampler of a request: the folder's, or what the request asks for instead.
#pragma once
#include <memory>
#include <string>

#include "models/family.h"
#include "request/request.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// Of n steps of inference: those left out at the front because the request begins with a picture. Throws
// Error(kUsage) where its strength leaves none to run.
int left_out(const request::Request& request, int steps, models::ImageToImage::Cut cut);
// Steps of inference that the request's sampler lays out, of which some may be left out.
int laid_out(const request::Request& request);

// What strength means to requests that do not say.
request::UsualStrength usual_strength(const models::Family& family);

// Gives the sampler of a request the name of its form for models that follow a flow, where the model does; a
// sentence about that, or nothing.
std::string settle_sampler(request::Request& request, const Json& scheduler_config);

// usual: what the pipeline says of its own. Throws Error(kUsage) for what does not fit the model or is no
// list of numbers, Error(kCheckpoint) for an option of the folder that is not supported.
std::unique_ptr<sampling::Sampler> sampler_of(const request::Request& request, const Json& scheduler_config,
                                              sampling::Call usual,
                                              models::ImageToImage::Cut cut = models::ImageToImage::kSteps);

}  // namespace atelier::pipeline
