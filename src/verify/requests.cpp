#include "verify/requests.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::verify {

CallArguments::CallArguments(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw Error(Kind::kUsage, where_ + " is no JSON object");
}

const Json* CallArguments::find(const std::string& key) {
  known_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void CallArguments::finish() const {
  std::string unknown;
  for (const auto& [key, value] : object_.items()) {
    if (!value.is_null() && !known_.contains(key)) unknown += (unknown.empty() ? "" : ", ") + key;
  }
  if (!unknown.empty())
    throw Error(Kind::kUsage, str(where_, " has ", unknown, ", which verify does not understand"));
}

namespace {

// What a diffusers call may say and no request does: that sizes are rounded, which the noise shows, and that
// prompts are rewritten, which is not done here.
void check_fixed(CallArguments& arguments, const std::string& where) {
  arguments.find(kRounds);
  const char* name = "clean_caption";
  const Json* value = arguments.find(name);
  if (value && *value != Json(false))
    throw Error(Kind::kUsage, str(where, " has ", name, " ", value->dump(), "; only false is repeated"));
}

// By its own name or another one.
const Json* argument_of(CallArguments& arguments, const Field& field) {
  const Json* value = arguments.find(std::string(field.name));
  for (const auto& alias : words_of(field.aliases)) {
    const Json* other = arguments.find(alias);
    if (!value) value = other;
  }
  return value;
}

// Further prompts that stand in a list are what they are, also without a character; one alone is then none.
// Texts of a branch that is not drawn stay unset.
void keep_listed(const Json& call, request::Request& read, request::Request& settled) {
  std::map<std::string, std::optional<std::string>*> given;
  read.fields([&](const Field& field, const FieldRef& slot) {
    const std::string name(field.name);
    const bool is_list = call.contains(name) && call.at(name).is_array();
    auto* const* text = std::get_if<std::optional<std::string>*>(&slot);
    if (is_list && text) given[name] = *text;
  });
  const bool has_negative = request::branches(settled) > 1;
  settled.fields([&](const Field& field, const FieldRef& slot) {
    const auto found = given.find(std::string(field.name));
    if (found == given.end() || (!has_negative && field.name.starts_with("negative"))) return;
    *std::get<std::optional<std::string>*>(slot) = *found->second;
  });
}

}  // namespace

int outputs_per_prompt(const Json& call) {
  int each = 1;
  for (const char* name : {"num_images_per_prompt", "num_videos_per_prompt"}) {
    const Json said = call.value(name, Json());
    if (said.is_null()) continue;
    constexpr int kMost = 1000;
    if (!said.is_number_integer() || said < 1 || said > kMost)
      throw Error(Kind::kUsage,
                  str(name, " must be a whole number from 1 to ", kMost, ", found ", said.dump()));
    each *= said.get<int>();
  }
  return each;
}

std::vector<request::Request> requests_of(const Json& call, const request::Request& usual,
                                          const std::string& where, const PictureRules& pictures) {
  CallArguments arguments(call, where);
  const Json* prompt = arguments.find("prompt");
  const size_t prompts = !prompt ? 0 : prompt->is_array() ? prompt->size() : 1;
  const int each = outputs_per_prompt(call);
  for (const char* name : {"num_images_per_prompt", "num_videos_per_prompt"}) arguments.find(name);
  arguments.find("output_type");
  check_fixed(arguments, where);
  if (prompts == 0) throw Error(Kind::kUsage, where + " has no prompt");
  std::vector<request::Request> out(prompts * static_cast<size_t>(each));
  for (size_t i = 0; i < out.size(); ++i) {
    auto& r = out[i];
    r.fields([&](const Field& field, const FieldRef& slot) {
      const FieldRef files[] = {&r.image,         &r.mask,      &r.last_image, &r.reference_images,
                                &r.control_video, &r.mask_video};
      const bool is_file = std::find(std::begin(files), std::end(files), slot) != std::end(files);
      if (field.effect == Effect::kPlace && !is_file) return;
      const std::string name(field.name);
      const Json* value = argument_of(arguments, field);
      if (!value) return;
      if (value->is_array() && (name == "sigmas" || name == "timesteps")) {
        std::string numbers;  // one list for all
        for (const auto& number : *value) numbers += (numbers.empty() ? "" : ",") + number.dump();
        return set_from_json(field, slot, numbers, where);
      }
      if (is_list(slot)) return set_from_json(field, slot, *value, where);
      const size_t given = value->is_array() ? value->size() : 1;
      if (given != 1 && given != prompts)
        throw Error(Kind::kUsage,
                    str(where, " has ", given, " values as ", name, " for ", prompts, " prompts"));
      const size_t at = given == 1 ? 0 : i / static_cast<size_t>(each);
      set_from_json(field, slot, value->is_array() ? (*value)[at] : *value, where);
    });
    fill_unset(r, usual);
    *r.seed += i;
    if (!request::has_negative(r)) r.true_cfg_scale.reset();
    auto read = r;
    request::settle_branches(r, {.guidance_is_cfg = usual.guidance_is_cfg});
    keep_listed(call, read, r);
    request::place_pictures(r, pictures.folder);
    if (!usual.num_frames) request::settle_strength(r, pictures.usual);  // of a video it is the first frame
    request::settle_step_cache(r);
    r.name = str("picture ", i + 1);
  }
  arguments.finish();
  return out;
}

request::Request usual_request(const pipeline::ModelRepo& model) {
  const auto& d = model.defaults();
  request::Request r;
  r.height = d.height, r.width = d.width, r.num_inference_steps = d.steps;
  r.guidance_scale = d.guidance, r.max_sequence_length = static_cast<int>(d.max_sequence_length);
  r.seed = 0;
  if (model.draws_videos()) r.num_frames = d.frames;
  r.guidance_is_cfg = model.family().guidance_scale == models::GuidanceScale::kClassifierFree;
  return r;
}

}  // namespace atelier::verify
