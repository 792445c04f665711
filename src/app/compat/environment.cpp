// The DG_ variables.
#include "app/compat/environment.h"

#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "app/settings/field.h"
#include "base/error.h"
#include "base/text.h"

namespace atelier::app {
namespace {

// A name that begins with '_' continues the prefix of its group.
constexpr struct {
  std::string_view prefix, names;
} kIdle[] = {
    {"DG_SERVE", "_NUM_INFERENCE_STEPS _GUIDANCE_SCALE"},
    {"DG_DEBUG", "_SERVE"},
    {"DG_COMPILE", "_MODE _FULLGRAPH _COMPONENTS"},
    {"DG_CACHE", "_INTERVAL _BRANCH_ID"},
    {"DG",
     "_FBC_THRESHOLD _PAB_SPATIAL_SKIP _PAB_TIMESTEP_SKIP _GROUP_OFFLOAD_TYPE _STORAGE_DTYPE _COMPUTE_DTYPE"},
    {"DG_BAGEL", "_NUM_TIMESTEPS _CFG_TEXT_SCALE _CFG_IMG_SCALE _CFG_INTERVAL _TIMESTEP_SHIFT _THINK"},
    {"DG_STEP1X", "_VERSION _SIZE_LEVEL _OFFLOAD _QUANTIZED"},
    {"DG_EMU35",
     "_HF_DEVICE _VQ_PATH _TOKENIZER_PATH _CFG _MAX_NEW_TOKENS _IMAGE_AREA _VQ_DEVICE _VQ_TYPE "
     "_GPUS_PER_MODEL"},
    {"DG_DREAMOMNI2", "_VLM_PATH _LORA_PATH _TASK_TYPE _OUTPUT_HEIGHT _OUTPUT_WIDTH"},
    {"DG_FLUX_KONTEXT", "_OFFLOAD _MAX_SEQUENCE_LENGTH"},
    {"DG_HUNYUAN_IMAGE_3",
     "_GPUS_PER_MODEL _ATTN_IMPL _MOE_IMPL _MOE_DROP_TOKENS _USE_SYSTEM_PROMPT _BOT_TASK "
     "_INFER_ALIGN_IMAGE_SIZE "
     "_MAX_NEW_TOKENS _USE_TAYLOR_CACHE"},
    {"DG_DEEPGEN",
     "_CHECKPOINT _CONFIG _DIFFUSION_MODEL_PATH _AR_MODEL_PATH _MAX_LENGTH _GPUS_PER_MODEL _DEBUG_CHECKPOINT "
     "_IMAGE_RESIZE_MODE"},
    {"DG_OPENAI",
     "_API_KEY _BASE_URL _RATE_LIMIT _ENDPOINTS _API_KEYS _RATE_LIMITS _WEIGHTS _TIMEOUT _MAX_RETRIES "
     "_MAX_WORKERS "
     "_RETRY_DELAY"},
    {"DG_GEMINI",
     "_API_KEY _BASE_URL _RATE_LIMIT _ENDPOINTS _API_KEYS _RATE_LIMITS _WEIGHTS _TIMEOUT _MAX_RETRIES "
     "_MAX_WORKERS "
     "_RETRY_DELAY _API_VERSION _ASPECT_RATIO"},
    {"DG_PROMPT_ENHANCER", "_API_KEY _API_BASE _MODEL _TEMPERATURE _DEBUG _DEBUG_DIR"},
    {"DG_FLUX2", "_ENHANCER_MODE"},
};

std::vector<std::string> unused_names() {
  std::vector<std::string> out;
  for (const auto& group : kIdle) {
    for (const auto& name : words_of(group.names)) out.push_back(std::string(group.prefix) + name);
  }
  return out;
}

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
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

std::vector<std::string> unused_variables(const Environment& environment,
                                          const std::vector<std::string>& used) {
  std::vector<std::string> out;
  for (const auto& name : unused_names()) {
    if (environment.count(name) && !holds(used, name)) out.push_back(name);
  }
  return out;
}

std::vector<std::string> unknown_variables(const Environment& environment,
                                           const std::vector<std::string>& used) {
  auto known = unused_names();
  known.insert(known.end(), used.begin(), used.end());
  std::vector<std::string> out;
  for (const auto& [name, value] : environment) {
    if (!name.starts_with("DG_") || holds(known, name)) continue;
    const std::string near = nearest_name(name, known);
    out.push_back(str(name, " in the environment is unknown and has no effect",
                      near.empty() ? "" : "; did you mean ", near, near.empty() ? "" : "?"));
  }
  return out;
}

std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates) {
  const auto found = nearest(name, candidates, 1);
  return found.empty() ? std::string() : found.front();
}

}  // namespace atelier::app
