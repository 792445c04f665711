// The DG_ variables.
#include "app/compat/environment.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/suggest.h"

namespace atelier::app {
namespace {

// Of other models, of services and of what this build does not do.
constexpr std::string_view kIdlePrefixes[] = {
    "DG_SERVE_",  "DG_DEBUG_",           "DG_COMPILE_",    "DG_CACHE_",        "DG_FBC_",
    "DG_PAB_",    "DG_GROUP_",           "DG_STORAGE_",    "DG_COMPUTE_",      "DG_BAGEL_",
    "DG_STEP1X_", "DG_EMU35_",           "DG_DREAMOMNI2_", "DG_FLUX_KONTEXT_", "DG_DEEPGEN_",
    "DG_OPENAI_", "DG_HUNYUAN_IMAGE_3_", "DG_GEMINI_",     "DG_FLUX2_",        "DG_PROMPT_ENHANCER_"};

bool is_idle(const std::string& name) {
  return std::any_of(std::begin(kIdlePrefixes), std::end(kIdlePrefixes),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

}  // namespace

Environment environment() {
  Environment out;
  for (char** at = ::environ; at && *at; ++at) {
    const std::string_view entry(*at);
    const size_t equals = entry.find('=');
    if (equals != std::string_view::npos) out.emplace(entry.substr(0, equals), entry.substr(equals + 1));
  }
  return out;
}

std::string value_of(const Environment& environment, const std::string& name) {
  const auto at = environment.find(name);
  return at == environment.end() ? std::string() : at->second;
}

Unused unused_variables(const Environment& environment, const std::vector<std::string>& used) {
  Unused out;
  for (const auto& [name, value] : environment) {
    if (!name.starts_with("DG_") || std::find(used.begin(), used.end(), name) != used.end()) continue;
    if (is_idle(name)) {
      out.idle.push_back(name);
    } else {
      out.unknown.push_back(
          str(name, " in the environment is unknown and has no effect", did_you_mean(name, used)));
    }
  }
  return out;
}

}  // namespace atelier::app
