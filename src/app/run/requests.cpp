// From prompts to pictures.
#include "app/run/requests.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "app/compat/scripts.h"
#include "app/run/adapters.h"
#include "app/run/identity.h"
#include "app/run/picture_check.h"
#include "base/error.h"
#include "base/text.h"
#include "base/version.h"
#include "media/image.h"
#include "media/limits.h"
#include "pipeline/request_sampler.h"
#include "plan/parallel_config.h"
#include "request/work.h"

namespace atelier::app {
namespace {

constexpr const char* kDefaultPrompt = "a fox in the snow";
constexpr double kUsualTrueCfg = 4.0;  // where neither the user nor the model says

bool has_prompt(const InputSettings& input) {
  const auto& prompts = input.texts_of("prompt");
  return std::any_of(prompts.begin(), prompts.end(), [](const auto& p) { return !trim(p).empty(); });
}

void check_texts(const Resolved& resolved) {
  for (const auto& [name, texts] : resolved.settings.input.texts) {
    for (const auto& text : texts) {
      if (is_utf8(text)) continue;
      throw Error(Kind::kUsage,
                  str(resolved.origin(name).text, " is not UTF-8: set the terminal or file to UTF-8"));
    }
  }
}

// Sets the texts of a request that `pick` chooses from those of each name; it gives null for none.
template <class Pick>
void set_texts(request::Request& request, const InputSettings& input, const Pick& pick) {
  request.fields([&](const Field& field, const FieldRef& slot) {
    const std::string* text = pick(field.name, input.texts_of(field.name));
    if (text) set_from_text(field, slot, {*text}, std::string(field.name));
  });
}

// The least length is one letter, as in the rows of files.
request::Prompts prompts_of_flags(const Resolved& resolved) {
  const auto& input = resolved.settings.input;
  request::Prompts out;
  for (const auto& text : input.texts_of("prompt")) {
    if (trim(text).empty()) {
      throw Error(Kind::kUsage, resolved.origin("prompt").text + " is empty: write what to draw");
    }
    request::PromptRow row;
    const size_t i = out.rows.size();
    row.request.index = static_cast<int64_t>(i);
    set_texts(row.request, input, [&](std::string_view name, const auto& texts) {
      return texts.size() > 1 || (name == "prompt" && i == 0) ? &texts[i] : nullptr;
    });
    request::place_pictures(row.request, std::filesystem::current_path());
    out.rows.push_back(std::move(row));
  }
  return out;
}

// What rows and prompts take that do not say: from the settings, then from the model.
request::Request common_request(const InputSettings& input, const pipeline::ModelDefaults& d) {
  request::Request out = input.row.request;
  set_texts(out, input, [](std::string_view name, const auto& texts) {
    return texts.size() == 1 && name != "prompt" ? &texts[0] : nullptr;
  });
  request::place_pictures(out, std::filesystem::current_path());
  request::Request of_model;
  of_model.height = d.height, of_model.width = d.width, of_model.num_inference_steps = d.steps;
  of_model.guidance_scale = d.guidance;
  of_model.max_sequence_length = static_cast<int>(d.max_sequence_length);
  fill_unset(out, of_model);
  return out;
}

// And who says so.
struct SourcedRule : request::CfgRule {
  CfgSource source = CfgSource::kNone;
};

SourcedRule cfg_rule(const request::Request& common, const pipeline::ModelRepo& model) {
  if (model.family().guidance_scale == models::GuidanceScale::kClassifierFree)
    return {{.guidance_is_cfg = true}, CfgSource::kFamily};
  if (common.true_cfg_scale) return {{false, *common.true_cfg_scale, true}, CfgSource::kSetting};
  if (const double own = model.defaults().true_cfg; own > 1) return {{false, own, true}, CfgSource::kModel};
  if (*common.guidance_scale > 1) return {{false, *common.guidance_scale, false}, CfgSource::kGuidance};
  return {{false, kUsualTrueCfg, false}, CfgSource::kUsual};
}

// Takes out pictures whose size the model cannot draw. Only a row of a file may ask for such a size and fail
// alone.
class SizeCheck {
 public:
  SizeCheck(const pipeline::ModelRepo& folder, int height, int width) : folder_(folder) {
    area(height, width);
  }

  // Tokens; throws Error(kUsage).
  int64_t area(int height, int width) const { return folder_.image_tokens(height, width); }
  // Empty if the size is good.
  const std::string& problem(int height, int width) {
    const auto [at, is_new] = known_.try_emplace({height, width});
    if (!is_new) return at->second;
    try {
      area(height, width);
    } catch (const Error& e) {
      at->second = e.what();
    }
    return at->second;
  }

 private:
  const pipeline::ModelRepo& folder_;
  std::map<std::pair<int, int>, std::string> known_;
};

// Whether the sampler and the steps that a request asks for can be.
class SamplerCheck {
 public:
  explicit SamplerCheck(const pipeline::ModelRepo& folder) : folder_(folder) {}

  // What keeps a request of so many tokens from being drawn, or nothing.
  const std::string& problem(const request::Request& r, int64_t tokens) {
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
    const auto& family = folder_.family();
    try {
      pipeline::sampler_of(
          r, folder_.scheduler(),
          {.linear_sigmas = family.sigmas == models::Sigmas::kLinearToInverse, .tokens = tokens},
          family.image_to_image.cut);
    } catch (const Error& e) {
      at->second = e.what();
    }
    return at->second;
  }

 private:
  const pipeline::ModelRepo& folder_;
  std::map<std::string, std::string> known_;
};

Extent extent_of(const std::vector<request::Request>& requests, const request::Request& common,
                 const SizeCheck& sizes, int batch, const models::Family& family) {
  const auto least = std::min_element(requests.begin(), requests.end(), [&](const auto& a, const auto& b) {
    return sizes.area(*a.height, *a.width) < sizes.area(*b.height, *b.width);
  });
  const request::Request& r = least == requests.end() ? common : *least;
  const bool all_branch =
      request::branches(r) == 2 &&
      std::all_of(requests.begin(), requests.end(), [](const auto& q) { return request::branches(q) == 2; });
  return {.height = *r.height,
          .width = *r.width,
          .work = {.image_tokens = sizes.area(*r.height, *r.width),
                   .text_tokens = *common.max_sequence_length,
                   .branches = all_branch ? 2 : 1,
                   .steps = steps_of(r, family),
                   .batch = batch,
                   .pictures = std::ssize(requests)}};
}

// Settles the second branch; what is wrong with it, or nothing.
std::string settle_problem(request::Request& r, const request::CfgRule& rule) {
  try {
    request::settle_branches(r, rule);
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

// Empty if the adapters fit the model.
std::string adapter_problem(request::Request& r, AdapterChoice& adapters) {
  try {
    adapters.settle(r);
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

// Empty if the model can encode so many tokens.
std::string length_problem(int tokens, const models::Family& family) {
  if (tokens <= family.most_text_tokens) return {};
  return str(tokens, " tokens were asked for; prompts of ", family.name, " have at most ",
             family.most_text_tokens);
}

// Empty if the model can leave layers of its encoders out.
std::string clip_skip_problem(const request::Request& r, const models::Family& family) {
  if (r.clip_skip.value_or(0) == 0 || family.has_clip_skip) return {};
  return str("clip_skip ", *r.clip_skip, " was asked for; ", family.name,
             " reads the last layer of its text ", "encoders alone");
}

}  // namespace

request::Prompts read_prompts(const Resolved& resolved) {
  const auto& input = resolved.settings.input;
  const bool has_file = !input.prompts_file.empty() || !input.dataset_path.empty();
  check_texts(resolved);
  // xDiT's own default is an empty prompt: it does not win over a file
  if (!input.texts_of("prompt").empty() && (has_prompt(input) || !has_file))
    return prompts_of_flags(resolved);
  const std::string& file = input.prompts_file.empty() ? input.dataset_path : input.prompts_file;
  if (file.empty() && resolved.surface == kRun && input.texts_of("prompt").empty()) {
    auto prompts = request::one_prompt(kDefaultPrompt);
    prompts.warnings.push_back(str("no prompt was given: \"", kDefaultPrompt, "\" is drawn"));
    return prompts;
  }
  if (file.empty() && resolved.surface == kSdxl)
    throw Error(Kind::kUsage,
                "nothing to draw: give --prompts FILE.csv with the columns prompt_id and prompt");
  if (file.empty()) {
    throw Error(Kind::kUsage,
                "nothing to draw: give --prompt TEXT or --prompts_file FILE (.jsonl, .json, .txt, .csv)");
  }
  return request::read_prompts(file, {.output_name_column = input.output_name_column,
                                      .limit = input.limit,
                                      .needs_name = resolved.surface == kSdxl});
}

namespace {

// What settings give to every picture. Throws Error(kUsage) naming the setting that the family has no use for.
void check_common(const Resolved& resolved, const request::Request& common, const models::Family& family) {
  const auto refuse = [&](const char* setting, const std::string& problem) {
    if (!problem.empty()) throw Error(Kind::kUsage, str(resolved.origin(setting).text, ": ", problem));
  };
  refuse("max_sequence_length", length_problem(*common.max_sequence_length, family));
  refuse("clip_skip", clip_skip_problem(common, family));
  if (common.guidance_is_cfg && common.true_cfg_scale)
    refuse("true_cfg_scale", str(family.name, " is guided by guidance_scale; give that one alone"));
}

// Empty if the family and the file's format take what the request asks for.
std::string field_problem(const request::Request& r, const models::Family& family) {
  std::string problem = length_problem(*r.max_sequence_length, family);
  if (problem.empty()) problem = clip_skip_problem(r, family);
  if (problem.empty()) problem = media::size_problem(*media::format_of(r.name), *r.width, *r.height);
  return problem;
}

}  // namespace

RequestSet make_requests(const Resolved& resolved, const pipeline::ModelRepo& folder,
                         request::Prompts prompts, const std::string& suffix) {
  const auto& s = resolved.settings;
  // prompts of the command line; of a file no more were read
  if (s.input.limit && prompts.rows.size() > static_cast<size_t>(*s.input.limit))
    prompts.rows.resize(*s.input.limit);
  request::Request common = common_request(s.input, folder.defaults());
  const bool is_share = !s.device.span_nodes;
  const request::PromptDefaults of_rows{.images = s.input.row.images.value_or(1),
                                        .seed = common.seed,
                                        .seeds = seeds_of(resolved),
                                        .suffix = suffix,
                                        .node = is_share ? s.device.node_rank : 0,
                                        .nodes = is_share ? s.device.num_nodes : 1};
  common.seed.reset();  // expand gives every picture its own
  const SourcedRule rule = cfg_rule(common, folder);
  common.guidance_is_cfg = rule.guidance_is_cfg;
  check_common(resolved, common, folder.family());
  SizeCheck sizes(folder, *common.height, *common.width);
  AdapterChoice adapters(folder, s.input.lora_scale);
  auto of_all = common;
  adapters.settle(of_all);  // only a row of a file may fail alone
  PictureCheck pictures(folder.family());
  SamplerCheck samplers(folder);
  RequestSet out;
  out.notes = prompts.warnings;
  bool loses_negative = false;
  for (auto& r : request::expand(prompts, of_rows)) {
    fill_unset(r, common);
    const bool has_negative = request::has_negative(r);
    std::string problem = settle_problem(r, rule);
    loses_negative = loses_negative || (problem.empty() && has_negative && request::branches(r) == 1);
    if (problem.empty()) problem = sizes.problem(*r.height, *r.width);
    if (problem.empty()) problem = field_problem(r, folder.family());
    if (problem.empty()) problem = adapter_problem(r, adapters);
    if (problem.empty()) problem = pictures.problem(r);
    if (problem.empty()) problem = samplers.problem(r, sizes.area(*r.height, *r.width));
    if (!problem.empty() && r.where.empty()) throw Error(Kind::kUsage, problem);
    if (!problem.empty()) {
      out.bad.push_back({r.where, problem});
      continue;
    }
    if (request::branches(r) == 2) {
      out.cfg = request::cfg_scale(r);
      out.cfg_source = rule.guidance_is_cfg || out.cfg == rule.scale ? rule.source : CfgSource::kSetting;
    }
    out.requests.push_back(std::move(r));
  }
  if (loses_negative) {
    out.notes.push_back(str("a negative prompt has no effect with ",
                            rule.guidance_is_cfg ? "guidance_scale" : "true_cfg_scale", " 1"));
  }
  out.adapters = adapters.lines();
  out.bad.insert(out.bad.begin(), prompts.bad.begin(), prompts.bad.end());
  for (auto& note : pictures.notes()) out.notes.push_back(std::move(note));
  out.extent = extent_of(out.requests, common, sizes, s.input.batch_size, folder.family());
  return out;
}

Json record_of(const Resolved& resolved, const FoundModel& model, const pipeline::EngineConfig& engine) {
  const auto& output = resolved.settings.output;
  Json out = hashes_of(model.spec, resolved.settings.model.hash_model ? Depth::kFull : Depth::kFast);
  out.update({{"model", model.name},
              {"version", kVersion},
              {"scheduler", model.folder.scheduler().value("_class_name", std::string())},
              {"dtype", engine.precision.denoiser}});
  if (engine.precision.encoders != engine.precision.denoiser)
    out["encoder_dtype"] = engine.precision.encoders;
  if (!model.revision.empty()) out["revision"] = model.revision;
  if (model.folder.is_dummy()) out["dummy_seed"] = model.spec.dummy_seed;
  if (engine.tier != "exact") out["tier"] = engine.tier;
  if (engine.vae_tiling) out["vae_tiling"] = true;
  if (output.output_format != "png") out["quality"] = output.quality;
  // Stale keys change the picture; every other layout is exact.
  const int patches = plan::patch_count(engine.layout);
  if (patches > 1) {
    out["pipefusion"] =
        str("stages ", engine.layout.pipeline, ", patches ", patches, ", warmup ", engine.layout.warmup);
  }
  return out;
}

void fill_seeds(std::vector<request::Request>& requests, const std::function<uint64_t()>& random) {
  uint64_t of_row = 0;
  const request::Request* last = nullptr;
  for (auto& r : requests) {
    if (r.seed) continue;
    const bool is_same_row = last && last->index == r.index && last->where == r.where;
    if (!is_same_row) of_row = random();
    r.seed = of_row + static_cast<uint64_t>(r.sub);
    last = &r;
  }
}

}  // namespace atelier::app
