#include "pipeline/request_sampler.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/field.h"
#include "base/text.h"
#include "sampling/choice.h"

namespace atelier::pipeline {
namespace {

std::vector<double> numbers_of(const char* name, const std::optional<std::string>& text) {
  std::vector<double> out;
  if (!text) return out;
  for (const auto& word : words_of(*text)) {
    const auto value = to_number(word);
    if (!value) throw Error(Kind::kUsage, str(name, " must be numbers with commas, found \"", word, '"'));
    out.push_back(*value);
  }
  if (out.empty()) throw Error(Kind::kUsage, str(name, " must be numbers with commas, found none"));
  return out;
}

}  // namespace

std::unique_ptr<sampling::Sampler> sampler_of(const request::Request& r, const Json& scheduler,
                                              sampling::Call call) {
  call.steps = *r.num_inference_steps;
  call.sigmas = numbers_of("sigmas", r.sigmas);
  call.timesteps = numbers_of("timesteps", r.timesteps);
  call.eta = r.eta.value_or(0);
  const auto config =
      sampling::chosen_config(scheduler, {.sampler = r.sampler.value_or(""), .shift = r.scheduler_shift});
  return sampling::make_sampler(config, call);
}

}  // namespace atelier::pipeline
