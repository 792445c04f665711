// From prompts to pictures.
#include "app/run/requests.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/compat/scripts.h"
#include "app/run/adapters.h"
#include "app/run/model_checks.h"
#include "app/run/picture_check.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"
#include "media/image.h"
#include "media/limits.h"
#include "media/video.h"
#include "pipeline/deterministic.h"
#include "pipeline/known_inputs.h"
#include "pipeline/request_sampler.h"
#include "pipeline/step_cache.h"
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
  for (const auto& text : resolved.settings.input.row.request.lora.value_or(std::vector<std::string>())) {
    if (is_utf8(text)) continue;
    throw Error(Kind::kUsage,
                str(resolved.origin("lora").text, ": the path ", in_quotes(text),
                    " is not UTF-8, as the metadata of pictures is: give a link of another name"));
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
    out.rows.push_back(row);
  }
  return out;
}

// What rows and prompts take that do not say: from the settings, then from the model.
request::Request common_request(const InputSettings& input, const pipeline::ModelRepo& model) {
  const auto& d = model.defaults();
  request::Request out = input.row.request;
  set_texts(out, input, [](std::string_view name, const auto& texts) {
    return texts.size() == 1 && name != "prompt" ? &texts[0] : nullptr;
  });
  request::place_pictures(out, std::filesystem::current_path());
  request::Request of_model;
  of_model.height = d.height, of_model.width = d.width, of_model.num_inference_steps = d.steps;
  of_model.guidance_scale = d.guidance;
  if (model.draws_videos()) of_model.num_frames = d.frames, of_model.fps = d.fps;
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

// Of the least picture; `common` where there is none.
Extent extent_of(const request::RequestList& requests, const request::Request& common, const SizeCheck& sizes,
                 int batch, const models::Family& family) {
  request::Request least = common;
  int64_t tokens = requests.empty() ? sizes.tokens(common) : INT64_MAX;
  bool all_branch = true, has_cache = common.cache_type.has_value();
  for (const auto& r : requests) {
    all_branch = all_branch && request::branches(r) == 2;
    has_cache = has_cache || r.cache_type;
    const int64_t own = sizes.tokens(r);
    if (own < tokens) least = r, tokens = own;
  }
  return {.height = *least.height,
          .width = *least.width,
          .work = {.image_tokens = tokens,
                   .text_tokens = *common.max_sequence_length,
                   .branches = all_branch && request::branches(least) == 2 ? 2 : 1,
                   .steps = steps_of(least, family),
                   .batch = batch,
                   .pictures = std::ssize(requests),
                   .has_step_cache = has_cache}};
}

// Settles the second branch and the step cache; what is wrong with them, or nothing.
std::string settle_problem(request::Request& r, const request::CfgRule& rule) {
  try {
    request::settle_branches(r, rule);
    request::settle_step_cache(r);
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

// Empty if the adapters fit the model, and what the request shows it.
std::string adapter_problem(request::Request& r, AdapterChoice& adapters, bool is_probe) {
  try {
    adapters.settle(r);
    return is_probe ? "" : adapters.control_problem(r);
  } catch (const Error& e) {
    return e.what();
  }
}

// Where a request lays its steps out itself, they are counted; what is wrong with them, or nothing.
std::string steps_problem(request::Request& r) {
  try {
    r.num_inference_steps = pipeline::laid_out(r);
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

// That somebody asked for, in a row or for all; before the row is filled up.
std::optional<int> said_steps(const Resolved& resolved, const request::Request& row,
                              const request::Request& common) {
  const bool is_of_all = resolved.is_set("num_inference_steps");
  return row.num_inference_steps || !is_of_all ? row.num_inference_steps : common.num_inference_steps;
}

// Empty unless somebody asked for another count of steps than there is.
std::string steps_note(const request::Request& r, const std::optional<int>& said) {
  if (!said || *said == *r.num_inference_steps) return {};
  return str("num_inference_steps ", *said, " has no effect: ", r.sigmas ? "sigmas" : "timesteps",
             " lay out ", *r.num_inference_steps);
}

// Empty if something is left to rescale.
std::string rescale_problem(const request::Request& r) {
  if (r.guidance_rescale.value_or(0) == 0 || request::branches(r) > 1) return {};
  return str("guidance_rescale ", *r.guidance_rescale,
             " was given; nothing is guided by two branches here: give a guidance above 1");
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
  if (file.empty() && resolved.surface == kScripts)
    throw Error(Kind::kUsage,
                "nothing to draw: give --prompts FILE.csv with the columns prompt_id and prompt");
  if (file.empty()) {
    throw Error(Kind::kUsage,
                "nothing to draw: give --prompt TEXT or --prompts_file FILE (.jsonl, .json, .txt, .csv)");
  }
  std::error_code none;
  if (!resolved.settings.output.quiet && std::filesystem::is_fifo(file, none))
    std::cerr << "prompts  from " << file << ", a pipe: waits until somebody writes to it" << std::endl;
  return request::read_prompts(file, {.output_name_column = input.output_name_column,
                                      .limit = input.limit,
                                      .needs_name = resolved.surface == kScripts,
                                      .spelled_out = [](const std::string& path) {
                                        return path.starts_with('~') ? expand_home(path, environment())
                                                                     : path;
                                      }});
}

namespace {

// What settings give to every picture. Throws Error(kUsage) naming the setting that the family has
// no use for.
void check_common(const Resolved& resolved, const request::Request& common,
                  const pipeline::ModelRepo& model) {
  const models::Family& family = model.family();
  const auto refuse = [&](const char* setting, const std::string& problem) {
    if (!problem.empty()) throw Error(Kind::kUsage, str(resolved.origin(setting).text, ": ", problem));
  };
  refuse("max_sequence_length", pipeline::text_length_problem(common, model));
  refuse("clip_skip", pipeline::clip_skip_problem(common, family));
  refuse("cache_type", pipeline::step_cache_problem(common, model, degrees_of(resolved)));
  if (resolved.settings.engine.deterministic) refuse("cache_type", pipeline::deterministic_problem(common));
  const auto sizes = pipeline::size_conditions_problem(common, model);
  if (!sizes.empty()) refuse(sizes.substr(0, sizes.find(' ')).c_str(), sizes);
  if (common.guidance_is_cfg && common.true_cfg_scale)
    refuse("true_cfg_scale", str(family.name, " is guided by guidance_scale; give that one alone"));
}

// Empty if the file's format holds what is drawn.
std::string format_problem(const request::Request& r, const models::Family& family) {
  using media::Format;
  const auto format = *media::format_of(r.name);
  const bool holds_pictures = format == Format::kPng || format == Format::kJpeg || format == Format::kWebp;
  const bool holds_videos = format != Format::kPng && format != Format::kJpeg;
  if (family.video && r.num_frames.value_or(1) > 1 && !holds_videos)
    return str(r.name, ": a ", media::suffix(format), " file holds one picture, not ", *r.num_frames,
               " frames; take webp, gif, mp4 or frames");
  if (!family.video && !holds_pictures)
    return str(r.name, ": ", family.name, " draws pictures; take png, jpeg or webp, not ",
               media::suffix(format).substr(1));
  if (format != Format::kMp4) return {};
  try {
    media::ffmpeg_module();
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

// Empty if the family and the file's format take what the request asks for.
std::string field_problem(const request::Request& r, const pipeline::ModelRepo& model) {
  const auto& family = model.family();
  std::string problem = pipeline::texts_problem(r, model);
  if (problem.empty()) problem = pipeline::size_conditions_problem(r, model);
  if (problem.empty()) problem = rescale_problem(r);
  if (problem.empty()) problem = format_problem(r, family);
  if (problem.empty()) problem = media::size_problem(*media::format_of(r.name), *r.width, *r.height);
  return problem;
}

request::PromptDefaults row_defaults(const Resolved& resolved, const request::Request& common,
                                     const std::string& suffix, bool draws_videos) {
  const auto& s = resolved.settings;
  const bool is_share = !s.device.span_nodes;
  return {.images = s.input.row.images.value_or(1),
          .seed = common.seed,
          .seeds = seeds_of(resolved),
          .kept = draws_videos ? std::span<const std::string_view>(request::kVideoEndings)
                               : request::kPictureEndings,
          .suffix = suffix,
          .node = is_share ? s.device.node_rank : 0,
          .nodes = is_share ? s.device.num_nodes : 1};
}

// All that can keep a request with settled branches from being drawn.
class RowCheck {
 public:
  RowCheck(const Resolved& resolved, const pipeline::ModelRepo& folder, VideoCheck videos, SizeCheck& sizes,
           AdapterChoice& adapters, PictureCheck& pictures)
      : folder_(folder),
        asked_(degrees_of(resolved)),
        is_deterministic_(resolved.settings.engine.deterministic),
        videos_(videos),
        sizes_(sizes),
        adapters_(adapters),
        pictures_(pictures),
        samplers_(folder) {}

  // Empty if nothing does; settles adapters, pictures and steps.
  std::string problem(request::Request& r) {
    std::string problem = videos_.problem(r);
    if (problem.empty()) problem = sizes_.problem(r);
    if (problem.empty()) problem = field_problem(r, folder_);
    if (problem.empty()) problem = pipeline::step_cache_problem(r, folder_, asked_);
    if (problem.empty() && is_deterministic_) problem = pipeline::deterministic_problem(r);
    if (problem.empty()) problem = adapter_problem(r, adapters_, videos_.is_probe());
    if (problem.empty()) problem = pictures_.problem(r);
    if (problem.empty()) problem = steps_problem(r);
    if (problem.empty()) problem = samplers_.problem(r, sizes_.tokens(r));
    return problem;
  }

  std::vector<std::string> notes() const { return samplers_.notes(); }

 private:
  const pipeline::ModelRepo& folder_;
  const plan::ParallelConfig asked_;
  const bool is_deterministic_;
  VideoCheck videos_;
  SizeCheck& sizes_;
  AdapterChoice& adapters_;
  PictureCheck& pictures_;
  SamplerCheck samplers_;
};

}  // namespace

RequestSet make_requests(const Resolved& resolved, const pipeline::ModelRepo& folder,
                         request::Prompts prompts, const std::string& suffix, const RowOptions& options) {
  const auto& s = resolved.settings;
  // prompts of the command line; of a file no more were read
  if (s.input.limit && std::ssize(prompts.rows) > *s.input.limit) {
    int64_t rows = 0;
    prompts.rows = prompts.rows.only([&](const auto&) { return rows++ < *s.input.limit; });
  }
  request::Request common = common_request(s.input, folder);
  const auto of_rows = row_defaults(resolved, common, suffix, folder.draws_videos());
  common.seed.reset();  // expand gives every picture its own
  const SourcedRule rule = cfg_rule(common, folder);
  common.guidance_is_cfg = rule.guidance_is_cfg;
  check_common(resolved, common, folder);
  SizeCheck sizes(folder);
  sizes.tokens(common);  // only a row of a file may fail alone
  std::optional<AdapterChoice> own;
  AdapterChoice& adapters = options.adapters ? *options.adapters : own.emplace(folder, s.input.lora_scale);
  auto of_all = common;
  adapters.settle(of_all);
  PictureCheck pictures(folder.family());
  RowCheck checks(resolved, folder, VideoCheck(folder, options.is_probe), sizes, adapters, pictures);
  RequestSet out;
  out.notes = prompts.warnings;
  bool loses_negative = false;
  const auto pictures_of_rows = request::expand(prompts, of_rows);
  for (request::Request r : pictures_of_rows) {
    const auto steps = said_steps(resolved, r, common);
    fill_unset(r, common);
    const bool has_negative = request::has_negative(r);
    std::string problem = settle_problem(r, rule);
    loses_negative = loses_negative || (problem.empty() && has_negative && request::branches(r) == 1);
    if (problem.empty()) problem = checks.problem(r);
    if (!problem.empty() && r.where.empty()) throw Error(Kind::kUsage, problem);
    if (!problem.empty()) {
      out.bad.push_back({r.where, problem});
      continue;
    }
    if (const auto note = steps_note(r, steps); !note.empty()) out.notes.push_back(note);
    if (request::branches(r) == 2) {
      out.cfg = request::cfg_scale(r);
      out.cfg_source = rule.guidance_is_cfg || out.cfg == rule.scale ? rule.source : CfgSource::kSetting;
    }
    out.requests.push_back(r);
  }
  if (loses_negative) {
    out.notes.push_back(str("a negative prompt has no effect with ",
                            rule.guidance_is_cfg ? "guidance_scale" : "true_cfg_scale", " 1"));
  }
  out.adapters = adapters.lines();
  out.bad.insert(out.bad.begin(), prompts.bad.begin(), prompts.bad.end());
  for (const auto& notes :
       {folder.unread_files(), sampler_notes(s.input.texts_of("sampler")), checks.notes(), pictures.notes()})
    out.notes.insert(out.notes.end(), notes.begin(), notes.end());
  out.extent = extent_of(out.requests, common, sizes, s.input.batch_size, folder.family());
  return out;
}

std::string output_format_of(const Resolved& resolved, const pipeline::ModelRepo& model) {
  const bool is_asked = resolved.is_set("output_format") || resolved.surface == kVideo;
  return is_asked || !model.draws_videos() ? resolved.settings.output.output_format : "webp";
}

}  // namespace atelier::app
