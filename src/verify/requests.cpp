#include "verify/requests.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::verify {
namespace {

size_t prompts_in(const Json& call, const std::string& where) {
  const auto at = call.find("prompt");
  const size_t count = at == call.end() ? 0 : at->is_array() ? at->size() : 1;
  if (count == 0) throw Error(Kind::kUsage, where + ": there is no prompt");
  return count;
}

}  // namespace

std::vector<request::Request> requests_of(const Json& call, const pipeline::ModelDefaults& d,
                                          const std::string& where) {
  const int each = call.value("num_images_per_prompt", 1);
  if (each < 1) throw Error(Kind::kUsage, str(where, ": num_images_per_prompt is ", each));
  request::Request usual;
  usual.height = d.height, usual.width = d.width, usual.num_inference_steps = d.steps;
  usual.guidance_scale = d.guidance, usual.max_sequence_length = static_cast<int>(d.max_sequence_length);
  usual.seed = 0;
  std::vector<request::Request> out(prompts_in(call, where) * static_cast<size_t>(each));
  for (size_t i = 0; i < out.size(); ++i) {
    auto& r = out[i];
    r.fields([&](const Field& field, const FieldRef& slot) {
      const auto at = call.find(field.name);
      if (field.effect == Effect::kPlace || at == call.end() || at->empty()) return;
      const size_t prompt = i / static_cast<size_t>(each);
      set_from_json(field, slot, at->is_array() ? (*at)[std::min(prompt, at->size() - 1)] : *at, where);
    });
    fill_unset(r, usual);
    *r.seed += i;
    if (!request::has_negative(r)) r.true_cfg_scale.reset();
    request::settle_branches(r, 1, false);
    r.name = str("picture ", i + 1);
  }
  return out;
}

}  // namespace atelier::verify
