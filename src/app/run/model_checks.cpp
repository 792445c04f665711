#include "app/run/model_checks.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "pipeline/request_sampler.h"
#include "request/sampler_names.h"

namespace atelier::app {
namespace {

// A file that a request may name, and whether the model is shown one.
struct ShownFile {
  const char* name;
  bool is_given;
  models::Shown shown;
};

std::array<ShownFile, 5> files_of(const request::Request& r, const models::VideoTraits& traits) {
  return {{{"image", r.image.has_value(), traits.image},
           {"last_image", r.last_image.has_value(), traits.last_image},
           {"reference_images", r.reference_images && !r.reference_images->empty(), traits.reference_images},
           {"control_video", r.control_video.has_value(), traits.control_video},
           {"mask_video", r.mask_video.has_value(), traits.mask_video}}};
}

// "image, control_video": what a model is shown.
std::string taken(const models::VideoTraits& traits) {
  std::string names;
  for (const auto& file : files_of({}, traits)) {
    if (file.shown != models::Shown::kNever) names += str(names.empty() ? "" : ", ", file.name);
  }
  return names.empty() ? "a prompt alone" : names;
}

}  // namespace

int64_t SizeCheck::tokens(const request::Request& r) const {
  return model_.image_tokens(*r.height, *r.width, r.num_frames.value_or(1));
}

const std::string& SizeCheck::problem(const request::Request& r) {
  const auto [at, is_new] = known_.try_emplace({*r.height, *r.width, r.num_frames.value_or(1)});
  if (!is_new) return at->second;
  try {
    tokens(r);
  } catch (const Error& e) {
    at->second = e.what();
  }
  return at->second;
}

const std::string& SamplerCheck::problem(request::Request& r, int64_t tokens) {
  if (const auto note = pipeline::settle_sampler(r, model_.scheduler()); !note.empty()) notes_.insert(note);
  const auto text = [](const std::optional<std::string>& value) { return value.value_or(""); };
  const Json asked{text(r.sampler),
                   text(r.sigmas),
                   text(r.timesteps),
                   r.scheduler_shift.value_or(-1),
                   r.eta.value_or(0),
                   *r.num_inference_steps,
                   r.image ? r.strength.value_or(1) : -1,
                   tokens};
  const auto [at, is_new] = known_.try_emplace(asked.dump());
  if (!is_new) return at->second;
  const auto& family = model_.family();
  try {
    pipeline::sampler_of(
        r, model_.scheduler(),
        {.linear_sigmas = family.sigmas == models::Sigmas::kLinearToInverse, .tokens = tokens},
        family.image_to_image.cut);
  } catch (const Error& e) {
    at->second = e.what();
  }
  return at->second;
}

std::vector<std::string> sampler_notes(const std::vector<std::string>& typed) {
  std::vector<std::string> out;
  for (const auto& text : typed) {
    const std::string name = request::sampler_named(lower(text));
    if (name != lower(text)) out.push_back(str("sampler ", text, " is ", name, " here"));
  }
  return out;
}

std::string VideoCheck::problem(request::Request& r) const {
  if (r.guidance_scale_2 && !traits_.has_second_guidance)
    return str("guidance_scale_2 ", *r.guidance_scale_2, " was given; ", model_.label(),
               " has one expert, which guidance_scale guides");
  return model_.draws_videos() ? of_videos(r) : of_pictures(r);
}

std::string VideoCheck::of_pictures(request::Request& r) const {
  if (r.conditioning_scale)
    return str("conditioning_scale was given; ", model_.family().name, " draws pictures without a control");
  if (r.num_frames.value_or(1) != 1)
    return str("num_frames ", *r.num_frames, " was given; ", model_.family().name, " draws pictures");
  r.num_frames.reset(), r.fps.reset();
  for (const auto& file : files_of(r, {})) {
    if (!file.is_given || std::string_view(file.name) == "image") continue;
    return str(file.name, " was given; ", model_.family().name,
               " draws pictures and can begin with an image, but is shown nothing else");
  }
  return {};
}

// What is wrong with the weights of the control blocks, or nothing.
std::string VideoCheck::scales_problem(const request::Request& r) const {
  int64_t given = 0;
  try {
    given = std::ssize(request::conditioning_scales(r));
  } catch (const Error& e) {
    return e.what();
  }
  const int64_t blocks = traits_.control_blocks;
  if (given > 0 && blocks == 0)
    return str("conditioning_scale was given; ", model_.label(),
               " has no control blocks that it weighs: a control LoRA has its strength, PATH:strength");
  if (given > 1 && given != blocks)
    return str("conditioning_scale has ", given, " numbers; this model takes one, or ", blocks,
               ", one for each of its control blocks");
  return {};
}

std::string VideoCheck::of_videos(request::Request& r) const {
  for (const auto& [name, is_given] :
       {std::pair{"mask", r.mask.has_value()}, {"strength", r.strength.has_value()}}) {
    if (is_given)
      return str(name, " was given; ", model_.family().name,
                 " draws every frame anew: an image is its first frame, whole");
  }
  for (const auto& [name, is_given, shown] : files_of(r, traits_)) {
    if (is_given && shown == models::Shown::kNever)
      return str(name, " was given; ", model_.label(), " is not shown any: it takes ", taken(traits_));
    if (!is_given && shown == models::Shown::kMust && !is_probe_)
      return str(model_.label(), " draws nothing without ", name, ": give --", name, " FILE");
  }
  if (r.conditioning_scale && !r.control_video)
    return "conditioning_scale was given, but no control_video whose weight it is";
  if (r.mask_video && !r.control_video)
    return "mask_video was given, but no control_video that it applies to";
  return scales_problem(r);
}

}  // namespace atelier::app
