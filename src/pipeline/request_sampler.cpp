#include "pipeline/request_sampler.h"

#include <algorithm>
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

int laid_out(const request::Request& r) {
  if (r.sigmas && r.timesteps)
    throw Error(Kind::kUsage,
                "sigmas and timesteps were given: each lays out all steps, so give one of them");
  for (const auto& [name, text] : {std::pair{"sigmas", &r.sigmas}, {"timesteps", &r.timesteps}}) {
    if (const auto given = numbers_of(name, *text); !given.empty()) return static_cast<int>(given.size());
  }
  return *r.num_inference_steps;
}

int left_out(const request::Request& r, int steps, models::ImageToImage::Cut cut) {
  if (!r.image) return 0;
  // In double and in this order, as the reference rounds it.
  const double run = std::min(steps * r.strength.value_or(1), static_cast<double>(steps));
  const int first =
      cut == models::ImageToImage::kFirst ? static_cast<int>(steps - run) : steps - static_cast<int>(run);
  if (first >= steps)
    throw Error(Kind::kUsage, str("strength ", r.strength.value_or(1), " of ", steps,
                                  " steps leaves none to run: take a larger one, or more steps"));
  return first;
}

request::UsualStrength usual_strength(const models::Family& family) {
  return {.plain = family.image_to_image.strength, .masked = family.image_to_image.masked};
}

std::string settle_sampler(request::Request& r, const Json& scheduler) {
  if (!r.sampler) return {};
  auto form = sampling::form_for(*r.sampler, sampling::is_flow(scheduler));
  if (form == *r.sampler) return {};
  const std::string note = str("sampler ", *r.sampler, " is ", form, " here: the model follows a flow");
  r.sampler = std::move(form);
  return note;
}

std::unique_ptr<sampling::Sampler> sampler_of(const request::Request& r, const Json& scheduler,
                                              sampling::Call call, models::ImageToImage::Cut cut) {
  call.begin = left_out(r, laid_out(r), cut);
  call.steps = *r.num_inference_steps;
  call.sigmas = numbers_of("sigmas", r.sigmas);
  call.timesteps = numbers_of("timesteps", r.timesteps);
  call.eta = r.eta.value_or(0);
  const auto config =
      sampling::chosen_config(scheduler, {.sampler = r.sampler.value_or(""), .shift = r.scheduler_shift});
  if (call.eta > 0 && config.value("_class_name", "") != "DDIMScheduler")
    throw Error(Kind::kUsage,
                str("eta ", call.eta, " was given; only the sampler ddim draws noise anew by it"));
  return sampling::make_sampler(config, call);
}

}  // namespace atelier::pipeline
