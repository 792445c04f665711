// From prompts to pictures.
#include "app/run/requests.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "models/vae.h"
#include "plan/parallel_config.h"
#include "request/work.h"

namespace atelier::app {
namespace {

constexpr double kUsualTrueCfg = 4.0;  // where neither the user nor the model says

void check_text(const Resolved& resolved, const char* name, const std::string& text) {
  if (!is_utf8(text)) {
    throw Error(Kind::kUsage,
                str(resolved.origin(name).text, " is not UTF-8: set the terminal or file to UTF-8"));
  }
}

bool has_prompt(const InputSettings& input) {
  return std::any_of(input.prompt.begin(), input.prompt.end(),
                     [](const auto& p) { return !trim(p).empty(); });
}

// The least length is one letter, as in the rows of files.
request::Prompts prompts_of_flags(const Resolved& resolved) {
  const auto& input = resolved.settings.input;
  for (const auto& text : input.negative_prompt) check_text(resolved, "negative_prompt", text);
  for (const auto& text : input.prompt) {
    check_text(resolved, "prompt", text);
    if (trim(text).empty()) {
      throw Error(Kind::kUsage, resolved.origin("prompt").text + " is empty: write what to draw");
    }
  }
  request::Prompts out;
  for (size_t i = 0; i < input.prompt.size(); ++i) {
    auto one = request::one_prompt(input.prompt[i]);
    one.rows.front().item.index = static_cast<int64_t>(i);
    if (input.negative_prompt.size() > 1) {
      one.rows.front().item.negative_prompt = input.negative_prompt[i];
      one.rows.front().item.has_negative = true;
    }
    out.rows.push_back(std::move(one.rows.front()));
  }
  return out;
}

// Whether a negative branch is drawn, with which scale, and why.
struct Branches {
  double scale = 1;
  bool for_all = false;  // also for pictures without a negative prompt: then it is empty
  std::string why;
};

Branches choose_branches(const Resolved& resolved, const pipeline::ModelDefaults& defaults, double guidance) {
  const auto& asked = resolved.settings.input.true_cfg_scale;
  if (asked) return {*asked, *asked > 1, resolved.origin("true_cfg_scale").text};
  if (defaults.true_cfg > 1)
    return {defaults.true_cfg, true, "the model's default; --true_cfg_scale 1 turns it off"};
  if (guidance > 1) return {guidance, false, "guidance_scale, for pictures with a negative prompt"};
  return {kUsualTrueCfg, false, "default for pictures with a negative prompt"};
}

// Takes out pictures whose size the model cannot draw. Only a row of a file may ask for such a size and fail
// alone.
class SizeCheck {
 public:
  SizeCheck(const pipeline::ModelRepo& folder, int height, int width)
      : folder_(folder), spatial_(models::find_vae(folder.vae()).facts(folder.vae()).spatial) {
    area(height, width);
  }

  // Tokens; throws Error(kUsage).
  int64_t area(int height, int width) const {
    const auto grid = folder_.family().grid(folder_.denoiser(), spatial_, height, width, 1);
    return grid.tokens();
  }
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
  const int64_t spatial_;
  std::map<std::pair<int, int>, std::string> known_;
};

struct Fill {
  int height, width, steps;
  double guidance;
};

Fill fill_of(const InputSettings& input, const pipeline::ModelDefaults& d) {
  return {input.height.value_or(d.height), input.width.value_or(d.width),
          input.num_inference_steps.value_or(d.steps), input.guidance_scale.value_or(d.guidance)};
}

void complete(request::Item& item, const Fill& fill, const InputSettings& input, const Branches& branches) {
  if (!item.height) item.height = fill.height;
  if (!item.width) item.width = fill.width;
  if (!item.steps) item.steps = fill.steps;
  if (!item.guidance) item.guidance = fill.guidance;
  if (!item.has_negative && input.negative_prompt.size() == 1) {
    item.negative_prompt = input.negative_prompt.front();
    item.has_negative = true;
  }
  if (branches.for_all) item.has_negative = true;
  if (branches.scale <= 1) {
    item.has_negative = false;
    item.negative_prompt.clear();
  }
}

Extent extent_of(const std::vector<request::Item>& items, const Fill& fill, const SizeCheck& sizes,
                 int64_t text_tokens, int batch) {
  Extent e{.height = fill.height,
           .width = fill.width,
           .text_tokens = text_tokens,
           .steps = fill.steps,
           .batch = batch};
  const auto least = std::min_element(items.begin(), items.end(), [&](const auto& a, const auto& b) {
    return sizes.area(*a.height, *a.width) < sizes.area(*b.height, *b.width);
  });
  if (least != items.end()) e.height = *least->height, e.width = *least->width, e.steps = *least->steps;
  const bool all_branch =
      std::all_of(items.begin(), items.end(), [](const auto& i) { return i.has_negative; });
  e.branches = all_branch && !items.empty() ? 2 : 1;
  return e;
}

}  // namespace

request::Prompts read_prompts(const Resolved& resolved) {
  const auto& input = resolved.settings.input;
  const bool has_file = !input.prompts_file.empty() || !input.dataset_path.empty();
  // xDiT's own default is an empty prompt: it does not win over a file
  if (!input.prompt.empty() && (has_prompt(input) || !has_file)) return prompts_of_flags(resolved);
  for (const auto& text : input.negative_prompt) check_text(resolved, "negative_prompt", text);
  const std::string& file = input.prompts_file.empty() ? input.dataset_path : input.prompts_file;
  if (file.empty()) {
    throw Error(Kind::kUsage,
                "nothing to draw: give --prompt TEXT or --prompts_file FILE (.jsonl, .json, .txt, .csv)");
  }
  return request::read_prompts(file, input.output_name_column);
}

RequestSet make_requests(const Resolved& resolved, const pipeline::ModelRepo& folder,
                         request::Prompts prompts, const std::string& suffix) {
  const auto& s = resolved.settings;
  const auto& defaults = folder.defaults();
  if (s.input.limit && prompts.rows.size() > static_cast<size_t>(*s.input.limit))
    prompts.rows.resize(*s.input.limit);
  if (!s.device.span_nodes) {
    prompts.rows = request::rows_of_node(prompts.rows, s.device.node_rank, s.device.num_nodes);
  }
  const Fill fill = fill_of(s.input, defaults);
  const Branches branches = choose_branches(resolved, defaults, fill.guidance);
  SizeCheck sizes(folder, fill.height, fill.width);
  RequestSet out;
  bool loses_negative = false;
  for (auto& item : request::expand(prompts, {s.input.num_images_per_prompt, s.input.seed, suffix})) {
    loses_negative =
        loses_negative || (branches.scale <= 1 && (item.has_negative || !s.input.negative_prompt.empty()));
    complete(item, fill, s.input, branches);
    const std::string& problem = sizes.problem(*item.height, *item.width);
    if (problem.empty()) {
      out.items.push_back(std::move(item));
    } else {
      out.bad.push_back({item.where, problem});
    }
  }
  if (loses_negative) out.notes.push_back("a negative prompt has no effect with true_cfg_scale 1");
  out.bad.insert(out.bad.begin(), prompts.bad.begin(), prompts.bad.end());
  out.max_sequence_length =
      s.input.max_sequence_length.value_or(static_cast<int>(defaults.max_sequence_length));
  if (const int64_t most = folder.family().most_text_tokens; out.max_sequence_length > most) {
    throw Error(Kind::kUsage,
                str(resolved.origin("max_sequence_length").text, ": ", out.max_sequence_length,
                    " tokens were asked for; prompts of ", folder.family().name, " have at most ", most));
  }
  const bool has_branch =
      std::any_of(out.items.begin(), out.items.end(), [](const auto& i) { return i.has_negative; });
  if (has_branch) out.true_cfg = branches.scale, out.true_cfg_why = branches.why;
  out.extent = extent_of(out.items, fill, sizes, out.max_sequence_length, s.input.batch_size);
  return out;
}

Json run_settings(const Resolved& resolved, const FoundModel& model, const cluster::Job& job,
                  const RequestSet& pictures) {
  Json out{{"model", model.name},
           {"scheduler", model.folder.scheduler().value("_class_name", std::string())},
           {"dtype", job.denoiser_dtype},
           {"max_sequence_length", pictures.max_sequence_length}};
  if (!model.revision.empty()) out["revision"] = model.revision;
  if (model.folder.is_dummy()) out["dummy_seed"] = model.spec.dummy_seed;
  if (pictures.true_cfg > 1) out["true_cfg_scale"] = pictures.true_cfg;
  if (job.vae_tiling) out["vae_tiling"] = true;
  if (job.format != media::Format::kPng) out["quality"] = resolved.settings.output.quality;
  // Stale keys change the picture; every other layout is exact.
  const bool is_stale = plan::patch_count(job.degrees) > 1;
  if (is_stale) {
    out["pipefusion"] = str("stages ", job.degrees.pipeline, ", patches ", plan::patch_count(job.degrees),
                            ", warmup ", job.degrees.warmup);
  }
  return out;
}

void fill_seeds(std::vector<request::Item>& items, uint64_t random) {
  for (auto& item : items) {
    if (!item.seed) item.seed = random + static_cast<uint64_t>(item.sub);
  }
}

}  // namespace atelier::app
