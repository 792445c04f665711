// The metadata of a generated picture, from the settings that made it.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/version.h"
#include "media/image.h"

namespace atelier::media {
namespace {

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Metadata describe(const Json& settings) {
  Metadata out;
  const auto get = [&](const char* key) {
    const auto found = settings.find(key);
    return found == settings.end() || found->is_null() ? std::string() : text_of(*found);
  };
  out.parameters = get("prompt");
  if (const std::string negative = get("negative_prompt"); !negative.empty()) {
    out.parameters += "\nNegative prompt: " + negative;
  }
  std::string line;
  const auto add = [&](std::string_view label, const std::string& value) {
    if (value.empty()) return;
    line += (line.empty() ? "" : ", ");
    line.append(label).append(": ").append(value);
  };
  add("Steps", get("num_inference_steps"));
  const std::string chosen = get("sampler");
  add("Sampler", chosen.empty() ? get("scheduler") : chosen);
  // Where a model embeds its guidance, the weight of the negative prompt is another number.
  const std::string weight = get("true_cfg_scale");
  add("CFG scale", weight.empty() ? get("guidance_scale") : weight);
  if (!weight.empty()) add("Distilled CFG Scale", get("guidance_scale"));
  add("Denoising strength", get("strength"));
  add("Seed", get("seed"));
  if (const std::string width = get("width"), height = get("height"); !width.empty() && !height.empty()) {
    add("Size", width + "x" + height);
  }
  add("Frames", get("num_frames"));
  add("FPS", get("fps"));
  add("Model", get("model"));
  add("Version", str("Atelier ", kVersion));
  out.parameters += "\n" + line;
  for (const auto& [key, value] : settings.items()) {
    if (!value.is_null()) out.values.emplace_back(key, text_of(value));
  }
  return out;
}

}  // namespace atelier::media
