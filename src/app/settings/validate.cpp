// Settings that this build cannot honour, that contradict each other, or that are out of range.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/compat/unsupported.h"
#include "app/settings/dtype.h"
#include "app/settings/resolve.h"
#include "base/error.h"
#include "models/family.h"

namespace atelier::app {
namespace {

[[noreturn]] void fail(const std::string& message) {
  throw Error(Kind::kUsage, message);
}

bool asks_for_ranks(const BackendSettings& b) {
  const int product = b.data_parallel_degree * b.ulysses_degree * b.ring_degree * b.pipefusion_degree *
                      b.tensor_parallel_degree;
  return product > 1 || b.use_cfg_parallel || !b.strategy.empty();
}

// What a refused or noted setting was set to; empty if it asks for nothing.
std::string asked_of(const UnsupportedSettings& later, const UnsupportedSetting& l) {
  const std::string key(l.name);
  if (l.takes == Takes::kSwitch) return later.switches.count(key) && later.switches.at(key) ? "true" : "";
  if (l.takes == Takes::kList) {
    return later.lists.count(key) && !later.lists.at(key).empty() ? later.lists.at(key).front() : "";
  }
  const std::string value = later.values.count(key) ? later.values.at(key) : "";
  return value == l.neutral ? "" : value;
}

bool is_offload(std::string_view name) {
  return name.find("offload") != std::string_view::npos;
}

void refuse_later(Resolved& r) {
  for (const UnsupportedSetting& l : unsupported_settings()) {
    if (asked_of(r.settings.unsupported, l).empty()) continue;
    const std::string where = r.origin(std::string(l.name)).text;
    if (l.treated == Treated::kNoted) {
      r.notes.push_back(str(where, " ", l.why));
    } else if (is_offload(l.name) && asks_for_ranks(r.settings.backend)) {
      fail(str(where,
               " cannot be combined with a parallel layout: every rank keeps its part of the weights on its "
               "device; drop it, or add ranks to need less of each"));
    } else {
      fail(str(where, " ", l.why));
    }
  }
}

void refuse_backend(const Resolved& r) {
  const std::string& backend = r.settings.model.backend;
  if (backend != "xdit" && backend != "diffusers") {
    fail(str(r.origin("backend").text, " ", backend,
             " is not in this build: choose xdit or diffusers, both mean its own engine"));
  }
}

void refuse_family(const Resolved& r) {
  const std::string& asked = r.settings.model.model_type;
  if (asked.empty()) return;
  std::string known;
  for (const auto* f : models::families()) {
    if (f->name == asked) return;
    known += (known.empty() ? "" : ", ") + std::string(f->name);
  }
  fail(str(r.origin("model_type").text, " ", asked, ": this build has no such family; it has ", known));
}

void settle_attention(Resolved& r) {
  std::string& name = r.settings.engine.attention_backend;
  if (r.settings.engine.enable_xformers && name.empty()) {
    name = "xformers";
    r.origins["attention_backend"] = r.origin("enable_xformers");
  }
  const std::string where = r.origin("attention_backend").text;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  static const std::vector<std::string> known{"",      "auto",     "sdpa",      "cudnn",
                                              "flash", "xformers", "efficient", "math"};
  if (name.starts_with("sage")) {
    fail(str(where, ": sage attention is not in this build: there is no INT8 kernel; use sdpa or flash"));
  }
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    fail(str(where, ": attention \"", name,
             "\" is not in this build; choose sdpa, cudnn, flash, xformers or math"));
  }
  if (name == "xformers")
    r.notes.push_back(str(where, ": xformers means this build's memory-efficient attention"));
}

void settle_dtype(Resolved& r) {
  auto& d = r.settings.device;
  if (d.use_fp16 && d.use_bf16) {
    fail(str("use_fp16 (", r.origin("use_fp16").text, ") and use_bf16 (", r.origin("use_bf16").text,
             ") are both true; keep one"));
  }
  try {
    d.torch_dtype = dtype_name(d.torch_dtype);
  } catch (const Error& e) {
    fail(str(r.origin("torch_dtype").text, ": ", e.what()));
  }
  if (!d.use_fp16 && !d.use_bf16) return;
  const std::string key = d.use_fp16 ? "use_fp16" : "use_bf16", dtype = d.use_fp16 ? "float16" : "bfloat16";
  if (!d.torch_dtype.empty() && d.torch_dtype != dtype) {
    fail(str(key, " (", r.origin(key).text, ") and torch_dtype ", d.torch_dtype, " (",
             r.origin("torch_dtype").text, ") disagree; keep one"));
  }
  d.torch_dtype = dtype;
  r.origins["torch_dtype"] = r.origin(key);
}

struct Limit {
  std::string_view name;
  double least, most;
};
constexpr double kMany = 1e9;
constexpr Limit kLimits[] = {
    {"num_nodes", 1, 1e4},
    {"master_port", 1, 65535},
    {"node_rank", 0, 1e4},
    {"data_parallel_degree", 1, 1e4},
    {"ulysses_degree", 1, 1e4},
    {"ring_degree", 1, 1e4},
    {"pipefusion_degree", 1, 1e4},
    {"tensor_parallel_degree", 1, 1e4},
    {"fully_shard_degree", 1, 1e4},
    {"warmup_steps", 0, kMany},
    {"num_pipeline_patch", 1, kMany},
    {"num_images_per_prompt", 1, 1e6},
    {"height", 1, 65536},
    {"width", 1, 65536},
    {"num_inference_steps", 1, 1e5},
    {"guidance_scale", 0, kMany},
    {"true_cfg_scale", 1, kMany},
    {"max_sequence_length", 1, 1e6},
    {"limit", 1, kMany},
    {"batch_size", 1, 1e5},
    {"max_retries", 0, 1e6},
    {"timeout", 1e-3, kMany},
    {"start_timeout", 1e-3, kMany},
    {"quality", 1, 100},
    {"num_iterations", 1, 1e6},
    {"warmup_calls", 0, 1e6},
};

void check_limits(Resolved& r) {
  r.settings.fields([&](const std::string&, const Field& field, const FieldRef& slot) {
    const auto limit = std::find_if(std::begin(kLimits), std::end(kLimits),
                                    [&](const Limit& l) { return l.name == field.name; });
    if (limit == std::end(kLimits)) return;
    const Json value = to_json(slot);
    if (value.is_null() || (value.get<double>() >= limit->least && value.get<double>() <= limit->most))
      return;
    fail(str(r.origin(std::string(field.name)).text, ": ", value.dump(), " was given; ", field.name,
             " must be from ", limit->least, " to ", static_cast<int64_t>(limit->most)));
  });
}

void refuse_contradictions(Resolved& r) {
  const auto& s = r.settings;
  const auto both = [&](const char* a, const char* b) {
    fail(str(r.origin(a).text, " and ", r.origin(b).text, " contradict each other; keep one"));
  };
  if (s.output.verbose && s.output.quiet) both("verbose", "quiet");
  if (!s.input.prompts_file.empty() && !s.input.dataset_path.empty()) both("prompts_file", "dataset_path");
  if (!s.model.dummy.empty() && !s.model.model_name.empty()) both("dummy", "model_name");
  if (s.device.node_rank >= s.device.num_nodes) {
    fail(str("node_rank ", s.device.node_rank, " with num_nodes ", s.device.num_nodes, ": ranks are 0 to ",
             s.device.num_nodes - 1));
  }
  if (s.input.negative_prompt.size() > 1 && s.input.negative_prompt.size() != s.input.prompt.size()) {
    fail(str(s.input.negative_prompt.size(), " negative prompts for ", s.input.prompt.size(),
             " prompts: give one, or one for each"));
  }
}

}  // namespace

void validate(Resolved& resolved) {
  refuse_later(resolved);
  refuse_backend(resolved);
  refuse_family(resolved);
  settle_attention(resolved);
  settle_dtype(resolved);
  check_limits(resolved);
  refuse_contradictions(resolved);
}

}  // namespace atelier::app
