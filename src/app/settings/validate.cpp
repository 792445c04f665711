// Settings that this build cannot honour, that contradict each other, or that are out of range.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "app/compat/unsupported.h"
#include "app/settings/dtype.h"
#include "app/settings/resolve.h"
#include "base/error.h"
#include "base/text.h"
#include "models/family.h"
#include "request/request.h"

namespace atelier::app {
namespace {

[[noreturn]] void fail(const std::string& message) {
  throw Error(Kind::kUsage, message);
}

// A degree that is asked for beside a refused setting: leaving the setting out is what makes the layout work.
std::string beside(const Resolved& r) {
  const auto& b = r.settings.backend;
  const std::pair<const char*, int> degrees[] = {{"pipefusion_degree", b.pipefusion_degree},
                                                 {"ulysses_degree", b.ulysses_degree},
                                                 {"kv_gather_degree", b.kv_gather_degree},
                                                 {"ring_degree", b.ring_degree},
                                                 {"tensor_parallel_degree", b.tensor_parallel_degree}};
  std::string list;
  for (const auto& [name, degree] : degrees) {
    if (degree > 1) list += (list.empty() ? "; " : ", ") + r.origin(name).text;
  }
  return list.empty() ? list : list + " works without it";
}

void refuse_unsupported(Resolved& r) {
  for (const Unsupported* u : r.settings.unsupported.asked()) {
    const std::string what = str(r.origin(std::string(u->name)).text, " ", u->why);
    if (u->treated == Treated::kRefused) fail(what + beside(r));
    r.notes.push_back(what);
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

// Texts of requests that are one of several words: a slip is found before a model is.
void check_words(const Resolved& r) {
  request::Request probe;
  probe.fields([&](const Field& field, const FieldRef& slot) {
    if (field.choices.empty() || !is_text(slot)) return;
    for (const auto& text : r.settings.input.texts_of(field.name))
      set_from_text(field, slot, {text}, r.origin(std::string(field.name)).text);
  });
}

// The two switches of configurations for video nodes: which kernels may be taken.
void take_kernel_switches(Resolved& r) {
  auto& engine = r.settings.engine;
  const bool flash = engine.use_flash_attention.value_or(true), sdpa = engine.use_sdpa.value_or(true);
  if ((flash && sdpa) || !engine.attention_backend.empty()) return;
  engine.attention_backend = flash ? "flash" : sdpa ? "efficient" : "math";
  r.origins["attention_backend"] = r.origin(sdpa ? "use_flash_attention" : "use_sdpa");
}

void take_e4m3_attention(Resolved& r) {
  auto& dtype = r.settings.engine.attention_dtype;
  if (r.is_set("attention_dtype") && dtype == "auto") {
    fail(str(r.origin("attention_backend").text, " means --attention_dtype fp8_e4m3, but ",
             r.origin("attention_dtype").text, " says auto: give one of them"));
  }
  if (!r.is_set("attention_dtype")) r.origins["attention_dtype"] = r.origin("attention_backend");
  dtype = "fp8_e4m3";
}

void settle_attention(Resolved& r) {
  std::string& name = r.settings.engine.attention_backend;
  if (r.settings.engine.enable_xformers && name.empty()) {
    name = "xformers";
    r.origins["attention_backend"] = r.origin("enable_xformers");
  }
  take_kernel_switches(r);
  const std::string where = r.origin("attention_backend").text;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return c == '-' ? '_' : std::tolower(c); });
  static const std::vector<std::string> known{"",       "auto",     "sdpa",      "cudnn", "flash",
                                              "flash3", "xformers", "efficient", "math"};
  // xDiT's and ComfyUI's words for kernels of this build
  static const std::map<std::string, std::string> elsewhere{
      {"sdpa_flash", "flash"}, {"flash_2", "flash"},  {"flash_attn_2", "flash"},
      {"flash_attn", "flash"}, {"flash_3", "flash3"}, {"flash_attn_3", "flash3"},
      {"fa3", "flash3"},       {"sdpa_math", "math"}, {"sdpa_efficient", "efficient"},
      {"sdpa_cudnn", "cudnn"}};
  if (name == "flash_3_fp8") name = "flash3", take_e4m3_attention(r);  // xDiT's word for both
  if (const auto at = elsewhere.find(name); at != elsewhere.end()) name = at->second;
  if (name.starts_with("sage")) {
    fail(str(where, ": sage attention is not in this build: there is no INT8 kernel; use sdpa or flash"));
  }
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    fail(str(where, ": attention \"", name,
             "\" is not in this build; choose sdpa, cudnn, flash, flash3, xformers or math"));
  }
}

void settle_tier(Resolved& r) {
  auto& engine = r.settings.engine;
  if (!engine.use_fp8_gemms) return;
  const bool is_said = r.is_set("tier");
  if (is_said && engine.tier == "exact") {
    fail(str(r.origin("use_fp8_gemms").text, " means --tier fast, but ", r.origin("tier").text,
             " says exact: give one of them"));
  }
  if (!is_said) engine.tier = "fast", r.origins["tier"] = r.origin("use_fp8_gemms");
}

// xDiT's switches for step caches.
void settle_cache_switches(Resolved& r) {
  const std::tuple<const char*, bool, std::string_view> switches[] = {
      {"use_teacache", r.settings.engine.use_teacache, request::kTeaCache},
      {"use_fbcache", r.settings.engine.use_fbcache, request::kFirstBlockCache}};
  for (const auto& [name, is_on, type] : switches) {
    if (!is_on) continue;
    auto& asked = r.settings.input.texts["cache_type"];
    const auto differs = [meant = type](const std::string& other) { return lower(other) != meant; };
    if (std::any_of(asked.begin(), asked.end(), differs)) {
      fail(str(r.origin(name).text, " means --cache_type ", type, ", but ", r.origin("cache_type").text,
               " says otherwise: give one of them"));
    }
    if (!asked.empty()) continue;
    asked = {std::string(type)};
    r.origins["cache_type"] = r.origin(name);
  }
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

// Exact stages under the name that configurations for video nodes have: PipeFusion whose steps are all whole.
void settle_stages(Resolved& r) {
  auto& b = r.settings.backend;
  if (!r.is_set("pipeline_parallel_size")) return;
  const Origin exact = r.origin("pipeline_parallel_size"), patches = r.origin("pipefusion_degree");
  const bool are_beside = r.is_set("pipefusion_degree") && patches.level == exact.level;
  const bool is_one_layout = b.pipefusion_degree == b.pipeline_parallel_size && b.pipefusion_sync;
  if (are_beside && b.pipefusion_degree > 1 && b.pipeline_parallel_size > 1 && !is_one_layout)
    fail(str(exact.text, " ", b.pipeline_parallel_size, " means exact stages of blocks and ", patches.text,
             " ", b.pipefusion_degree, " stages through which patches flow: give one of them"));
  if (patches.level > exact.level || (are_beside && b.pipeline_parallel_size == 1)) return;
  b.pipefusion_degree = b.pipeline_parallel_size;
  r.origins["pipefusion_degree"] = exact;
  if (b.pipeline_parallel_size == 1 || b.pipefusion_sync) return;
  const Origin sync = r.origin("pipefusion_sync");
  if (r.is_set("pipefusion_sync") && sync.level >= exact.level)
    fail(str(exact.text, " ", b.pipeline_parallel_size, " means exact stages, whose steps are whole, but ",
             sync.text,
             " says otherwise: leave one out; patches flow through stages of --pipefusion_degree"));
  b.pipefusion_sync = true;
  r.origins["pipefusion_sync"] = exact;
}

// Configurations for video nodes count latent tokens, which follow from the size; a prompt's length
// is another number.
void drop_latent_tokens(Resolved& r) {
  auto& length = r.settings.input.row.request.max_sequence_length;
  if (r.surface != kVideo || !length || r.origin("max_sequence_length").level != Precedence::kFile) return;
  r.notes.push_back(
      str(r.origin("max_sequence_length").text,
          " has no effect: tokens of a video follow from its size; --max_sequence_length is a prompt's"));
  length.reset();
  r.origins.erase("max_sequence_length");
}

void check_numbers(Resolved& r) {
  r.settings.fields([&](const std::string&, const Field& field, const FieldRef& slot) {
    check_limits(field, slot, r.origin(std::string(field.name)).text);
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
  const size_t prompts = s.input.texts_of("prompt").size();
  for (const auto& [name, texts] : s.input.texts) {
    if (texts.size() < 2 || texts.size() == prompts) continue;
    fail(str(r.origin(name).text, ": ", texts.size(), " values for ", prompts,
             " prompts: give one, or one for each"));
  }
}

}  // namespace

void validate(Resolved& resolved) {
  refuse_unsupported(resolved);
  refuse_family(resolved);
  settle_attention(resolved);
  settle_cache_switches(resolved);
  check_words(resolved);
  settle_tier(resolved);
  settle_dtype(resolved);
  settle_stages(resolved);
  drop_latent_tokens(resolved);
  check_numbers(resolved);
  refuse_contradictions(resolved);
}

}  // namespace atelier::app
