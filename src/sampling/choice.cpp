#include "sampling/choice.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "base/error.h"
#include "base/suggest.h"

namespace atelier::sampling {
namespace {

// Models, as a set.
enum Fits : unsigned { kNoModel = 0, kNoiseModels = 1, kFlowModels = 2, kAllModels = 3 };

struct NamedSampler {
  const char* name;
  const char* class_name;
  Fits fits;
  Fits curves;          // where its sigmas may lie on a curve, which is a suffix of the name
  const char* options;  // JSON
};

constexpr const char* kMultistep =
    R"({"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "solver_order": 2})";
constexpr const char* kMultistepSde =
    R"({"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint", "solver_order": 2})";
constexpr const char* kUnipc = R"({"solver_type": "bh2", "solver_order": 2, "predict_x0": true})";

const NamedSampler kNamed[] = {
    {"euler", "EulerDiscreteScheduler", kNoiseModels, kNoiseModels, "{}"},
    {"euler_a", "EulerAncestralDiscreteScheduler", kNoiseModels, kNoModel, "{}"},
    {"heun", "HeunDiscreteScheduler", kNoiseModels, kNoiseModels, "{}"},
    {"ddim", "DDIMScheduler", kNoiseModels, kNoModel, "{}"},
    {"ddpm", "DDPMScheduler", kNoiseModels, kNoModel, "{}"},
    {"lcm", "LCMScheduler", kNoiseModels, kNoModel, "{}"},
    {"dpmpp_2m", "DPMSolverMultistepScheduler", kAllModels, kNoiseModels, kMultistep},
    {"dpmpp_2m_sde", "DPMSolverMultistepScheduler", kAllModels, kNoiseModels, kMultistepSde},
    {"unipc", "UniPCMultistepScheduler", kAllModels, kNoiseModels, kUnipc},
    {"flow_euler", "FlowMatchEulerDiscreteScheduler", kFlowModels, kFlowModels,
     R"({"stochastic_sampling": false})"},
    {"flow_heun", "FlowMatchHeunDiscreteScheduler", kFlowModels, kFlowModels, "{}"},
    {"flow_lcm", "FlowMatchEulerDiscreteScheduler", kFlowModels, kNoModel,
     R"({"stochastic_sampling": true})"},
};

struct Curve {
  const char *suffix, *key;
};
constexpr Curve kCurves[] = {{"_karras", "use_karras_sigmas"},
                             {"_exponential", "use_exponential_sigmas"},
                             {"_beta", "use_beta_sigmas"}};

bool holds(Fits models, bool flow) {
  return models & (flow ? kFlowModels : kNoiseModels);
}

// A sampler and, with a suffix, its curve.
struct Found {
  const NamedSampler* sampler = nullptr;
  const Curve* curve = nullptr;
};

// Calls f(name, Found) for every name.
template <class F>
void for_each_name(const F& f) {
  for (const auto& s : kNamed) {
    f(std::string(s.name), Found{&s});
    for (const auto& curve : kCurves) {
      if (s.curves != kNoModel) f(str(s.name, curve.suffix), Found{&s, &curve});
    }
  }
}

bool fits(const Found& found, bool flow) {
  return holds(found.curve ? found.sampler->curves : found.sampler->fits, flow);
}

std::string listed(std::span<const std::string> names) {
  std::string out;
  for (const auto& name : names) out += str(out.empty() ? "" : ", ", name);
  return out;
}

Found find(const std::string& name, bool flow) {
  Found found;
  std::vector<std::string> all;
  for_each_name([&](const std::string& known, const Found& f) {
    if (known == name) found = f;
    all.push_back(known);
  });
  const auto good = sampler_names(flow);
  if (!found.sampler)
    throw Error(Kind::kUsage, str("there is no sampler ", name, did_you_mean(name, all),
                                  "; this model can take ", listed(good)));
  if (!fits(found, flow))
    throw Error(Kind::kUsage, str("the sampler ", name,
                                  flow ? " is for models that predict noise, this one follows a "
                                         "flow"
                                       : " is for models that follow a flow, this one predicts "
                                         "noise",
                                  ": take one of ", listed(good)));
  return found;
}

// The betas that the folder's own class takes where it says nothing.
void say_betas(Json& config) {
  const std::string own = config.value("_class_name", "");
  const bool short_range = own == "HeunDiscreteScheduler" || own == "LCMScheduler";
  const auto say = [&](const char* key, const Json& value) {
    if (config.value(key, Json()).is_null()) config[key] = value;
  };
  say("beta_start", short_range ? 0.00085 : 0.0001);
  say("beta_end", short_range ? 0.012 : 0.02);
  say("beta_schedule", own == "LCMScheduler" ? "scaled_linear" : "linear");
  say("clip_sample", false);  // latents have no bounds, whatever a class does where nothing is said
}

// The factor of the folder, under the names of all classes.
void say_shift(Json& config) {
  Json shift = config.value("shift", Json());
  if (shift.is_null()) shift = config.value("flow_shift", Json());
  if (!shift.is_null()) config["shift"] = config["flow_shift"] = shift;
  config["use_flow_sigmas"] = true;
  config["prediction_type"] = "flow_prediction";
}

}  // namespace

bool is_flow(const Json& config) {
  const Json name = config.value("_class_name", Json()), type = config.value("prediction_type", Json());
  return (name.is_string() && name.get<std::string>().starts_with("FlowMatch")) ||
         type == "flow_prediction" || config.value("use_flow_sigmas", Json()) == true;
}

std::string form_for(const std::string& sampler, bool flow) {
  std::string form = sampler;
  if (!flow) return form;
  for_each_name([&](const std::string& name, const Found& found) {
    if (name == "flow_" + sampler && fits(found, true)) form = name;
  });
  return form;
}

std::vector<std::string> sampler_names(bool flow) {
  std::vector<std::string> names;
  for_each_name([&](const std::string& name, const Found& found) {
    if (fits(found, flow)) names.push_back(name);
  });
  return names;
}

Json chosen_config(const Json& folder, const SamplerChoice& choice) {
  if (!folder.is_object()) return folder;
  Json config = folder;
  const bool flow = is_flow(folder);
  if (choice.shift) {
    if (!flow)
      throw Error(Kind::kUsage,
                  str("scheduler_shift ", *choice.shift,
                      " was asked for, but only models that follow a flow are shifted; this one "
                      "predicts noise"));
    config["shift"] = config["flow_shift"] = *choice.shift;
    config["use_dynamic_shifting"] = false;
  }
  if (choice.sampler.empty()) return config;
  const auto found = find(form_for(choice.sampler, flow), flow);
  if (config["_class_name"] != found.sampler->class_name) config.erase("variance_type");
  flow ? say_shift(config) : say_betas(config);
  for (const char* key : {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"})
    config.erase(key);
  if (found.curve) config[found.curve->key] = true;
  config["_class_name"] = found.sampler->class_name;
  config.update(Json::parse(found.sampler->options));
  return config;
}

}  // namespace atelier::sampling
