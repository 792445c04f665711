#include "verify/verify.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mean.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iomanip>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/json_problem.h"
#include "base/text.h"
#include "plan/picture_rows.h"
#include "verify/golden_adapters.h"
#include "verify/golden_cases.h"
#include "verify/golden_files.h"
#include "verify/golden_pipeline.h"
#include "verify/golden_runs.h"
#include "weights/tensors.h"

namespace atelier::verify {
namespace {

// "block.a.3@1" -> "block.a.3": the second call of a step runs the same modules.
std::string without_call(const std::string& name) {
  return name.substr(0, name.find('@'));
}
// "block.a.3.0" -> "block.a.3": the parts of a tuple end in their index.
std::string without_index(const std::string& name) {
  const size_t dot = name.find_last_of('.');
  const bool is_index =
      dot + 1 < name.size() && name.find_first_not_of("0123456789", dot + 1) == std::string::npos;
  return is_index ? name.substr(0, dot) : name;
}

// The modules whose outputs were produced, as "block.a.3" or "vae.block.a.3". Halves of an autoencoder are
// not one of its modules: what is inside them counts.
std::set<std::string> modules_of(const Produced& ours) {
  std::set<std::string> modules;
  for (const auto& [name, value] : ours.tensors) {
    const auto path = without_call(name);
    const auto dotted = "." + path;
    if (dotted.find(".block.") == std::string::npos && dotted.find(".chunk.") == std::string::npos) continue;
    if (path.ends_with(".encoder") || path.ends_with(".decoder")) continue;
    modules.insert(path);
    modules.insert(without_index(path));
  }
  return modules;
}

// Deeper inside a module whose own output is produced: an implementation that fuses need not have it.
bool is_inner(const std::string& name, const std::set<std::string>& modules) {
  const auto path = without_index(without_call(name));
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1)) {
    if (modules.contains(path.substr(0, dot))) return true;
  }
  return false;
}

// Inputs of the call, and what only describes it.
bool is_input(const std::string& name, GoldenKind kind) {
  const auto ends_with_any = [&](std::initializer_list<std::string_view> ends) {
    return std::any_of(ends.begin(), ends.end(), [&](auto end) { return name.ends_with(end); });
  };
  if (name == "noise" || name == "noise.packed" || name == "x0") return true;
  if (ends_with_any({".sched_noise", ".long_ids"})) return true;
  constexpr std::string_view kStep = "step";
  const size_t behind = name.find_first_not_of("0123456789", kStep.size());
  if (name.starts_with(kStep) && behind != std::string::npos && behind > kStep.size() &&
      name.compare(behind, 4, ".in.") == 0)
    return true;
  return (kind == GoldenKind::kVaes && ends_with_any({".x", ".z", ".input", ".latents"})) ||
         (kind == GoldenKind::kSchedulers && ends_with_any({".noise", ".start_noise"}));
}

// Errors of numbers that eight bits made on the way.
enum class Accuracy { kFull, kHalf, kEight };

bool has_eight_bits(const VerifyOptions& o) {
  return o.tier != nn::Tier::kExact || o.attention_dtype != nn::AttentionDtype::kAuto;
}

Accuracy accuracy_of(const VerifyOptions& o) {
  if (has_eight_bits(o)) return Accuracy::kEight;
  return o.denoiser == at::kBFloat16 || o.denoiser == at::kHalf ? Accuracy::kHalf : Accuracy::kFull;
}

struct Tolerance {
  double max, mean;  // kPsnr: at least `max` decibels for numbers that span `mean`
  enum { kRelative, kAbsolute, kPsnr } kind = kRelative;
};

// The table of goldens/README.md.
Tolerance tolerance_of(const std::string& name, Accuracy accuracy, GoldenKind kind, bool by_rows) {
  const bool half = accuracy != Accuracy::kFull;
  const auto ends = [&](std::string_view s) { return name.ends_with(s); };
  if (ends("timesteps") || ends("sigmas") || ends("init_noise_sigma")) return {1e-6, 1e-6};
  if (kind == GoldenKind::kSchedulers) return {1e-5, 1e-5};
  // Moments and attention over rows of several ranks add up in another order; float32 itself is
  // 1e-5 off here.
  if (kind != GoldenKind::kPipeline && by_rows) return {1e-4, 3e-5};
  if (kind != GoldenKind::kPipeline || name.starts_with("prompt.") || name.starts_with("negative."))
    return {3e-5, 3e-5};
  if (name == "image" || name == "video")
    return half ? Tolerance{accuracy == Accuracy::kEight ? 26.0 : 38.0, 1, Tolerance::kPsnr}
                : Tolerance{2e-4, 2e-4, Tolerance::kAbsolute};
  if (half && name == "vae.out")  // the image before its range is halved
    return {accuracy == Accuracy::kEight ? 26.0 : 38.0, 2, Tolerance::kPsnr};
  if (name.starts_with("merged.")) return {1e-5, 1e-5};
  const bool is_first = name.starts_with("block.") || name.starts_with("step0.");
  // Guidance multiplies what either branch lacks, and the steps behind it start from there.
  const bool is_guided = !is_first || ends(".guided") || ends(".latents");
  if (accuracy == Accuracy::kEight) return is_guided ? Tolerance{8, 8e-1} : Tolerance{1, 2e-1};
  if (half) return is_guided ? Tolerance{1, 1e-1} : Tolerance{1e-1, 2e-2};
  return is_first ? Tolerance{3e-5, 3e-5} : Tolerance{2e-4, 2e-4};
}

std::string shape_text(const at::Tensor& t) {
  std::string s = "[";
  for (int64_t i = 0; i < t.dim(); ++i) s += (i ? "," : "") + std::to_string(t.size(i));
  return s + "]";
}

ComparisonRow compare(const std::string& name, const at::Tensor& ours_any, const at::Tensor& golden_any,
                      Tolerance t) {
  ComparisonRow row{name, shape_text(golden_any), "", 0, 0, Verdict::kPass};
  if (ours_any.sizes() != golden_any.sizes()) {
    row.note = "shape " + shape_text(ours_any);
    row.verdict = Verdict::kFail;
    return row;
  }
  if (!golden_any.is_floating_point()) {
    const bool same = at::equal(ours_any.to(golden_any.scalar_type()), golden_any);
    row.note = same ? "equal" : "differs";
    row.verdict = same ? Verdict::kPass : Verdict::kFail;
    return row;
  }
  const auto ours = ours_any.to(at::kDouble), golden = golden_any.to(at::kDouble);
  if (golden.numel() == 0) return row;
  const auto error = (ours - golden).abs();
  const double rms = std::sqrt(golden.square().mean().item<double>());
  const double scale = t.kind == Tolerance::kRelative ? std::max(rms, 1e-30) : 1.0;
  row.max = error.max().item<double>() / scale;
  row.mean = error.mean().item<double>() / scale;
  if (t.kind == Tolerance::kPsnr) {
    const double psnr =
        -10 * std::log10(std::max(error.square().mean().item<double>() / (t.mean * t.mean), 1e-30));
    row.note = "PSNR " + std::to_string(psnr).substr(0, 5) + " dB";
    row.verdict = psnr >= t.max ? Verdict::kPass : Verdict::kFail;
    return row;
  }
  const bool good = std::isfinite(row.max) && row.max <= t.max && row.mean <= t.mean;
  row.verdict = good ? Verdict::kPass : Verdict::kFail;
  return row;
}

// Noisy latents as the model gets them, without what is given beside them where the recording
// leaves that out.
at::Tensor without_given(const std::string& name, const at::Tensor& ours, const at::Tensor& recorded) {
  const bool is_input = name.starts_with("step") && name.find(".model_in") != std::string::npos;
  const bool has_more = is_input && ours.dim() == 5 && recorded.dim() == 5 && ours.size(1) > recorded.size(1);
  return has_more ? ours.narrow(1, 0, recorded.size(1)) : ours;
}

// A recorded output of the model, pictures [B, C, ...], without the variance in the second half of its
// channels, which no sampler takes and an implementation need not have.
at::Tensor without_variance(const std::string& name, const at::Tensor& recorded, const at::Tensor& ours) {
  const bool is_output = name.starts_with("step") && name.find(".model_out") != std::string::npos;
  const bool has_both =
      is_output && ours.dim() == recorded.dim() && ours.dim() > 3 && recorded.size(1) == 2 * ours.size(1);
  return has_both ? recorded.narrow(1, 0, ours.size(1)) : recorded;
}

bool wanted(const VerifyOptions& o, const std::string& name) {
  if (o.only.empty()) return true;
  for (const auto& glob : o.only) {
    if (glob_matches(glob, name)) return true;
  }
  return false;
}

// prefix: of the run, before the names of its rows.
Comparison compare_all(const VerifyOptions& o, GoldenKind kind, const Tensors& recorded, const Produced& ours,
                       const std::string& prefix = "") {
  const auto accuracy = accuracy_of(o);
  Comparison result;
  for (const auto& name : ours.order) {
    const auto found = recorded.find(name);
    if (found == recorded.end() || !wanted(o, prefix + name) || is_input(name, kind)) continue;
    const auto produced = without_given(name, ours.tensors.at(name), found->second);
    const auto golden = without_variance(name, found->second, produced);
    result.rows.push_back(
        compare(prefix + name, produced, golden,
                tolerance_of(name, accuracy, kind, plan::may_code_by_rows(o.degrees, false))));
    auto& row = result.rows.back();
    if (row.note.empty() && golden.sizes() != found->second.sizes())
      row.note = "without the learned variance";
  }
  const auto modules = modules_of(ours);
  for (const auto& [name, value] : recorded) {
    if (ours.tensors.count(name) || !wanted(o, prefix + name) || is_input(name, kind) ||
        is_inner(name, modules))
      continue;
    const auto why = std::find_if(ours.refused.begin(), ours.refused.end(),
                                  [&missing = name](const auto& r) { return missing.starts_with(r.first); });
    result.rows.push_back({prefix + name, shape_text(value),
                           why == ours.refused.end() ? "not produced" : "refused: " + why->second, 0, 0,
                           Verdict::kMissing});
  }
  return result;
}

std::string scientific(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2e", v);
  return text;
}

// What bfloat16 makes of the same run.
std::vector<ComparisonRow> errors_of_half(const VerifyOptions& o, const GoldenRun& run) {
  auto half = o;
  half.denoiser = at::kBFloat16;
  half.tier = nn::Tier::kExact;
  half.attention_dtype = nn::AttentionDtype::kAuto;
  const auto produced = produce_pipeline(half, run.call, run.recorded);
  return compare_all(half, GoldenKind::kPipeline, run.recorded, produced, run.prefix).rows;
}

// The errors of another run, as notes.
void put_beside(std::vector<ComparisonRow>& rows, const std::vector<ComparisonRow>& half) {
  std::map<std::string, const ComparisonRow*> others;
  for (const auto& row : half) others[row.name] = &row;
  for (auto& row : rows) {
    const auto other = others.find(row.name);
    if (other == others.end() || other->second->max == 0) continue;
    row.note += str(row.note.empty() ? "" : ", ", "bfloat16 ", scientific(other->second->max), " ",
                    scientific(other->second->mean));
  }
}

Comparison verify_pipeline(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  Comparison all;
  FrameFolders frames;
  for (auto& run : runs_of(golden, recorded)) {
    run.call = with_files(run.call, o.folder, frames);
    const bool is_wanted = std::any_of(run.recorded.begin(), run.recorded.end(),
                                       [&](const auto& t) { return wanted(o, run.prefix + t.first); });
    if (!is_wanted) continue;
    const auto ours = produce_pipeline(o, run.call, run.recorded);
    auto rows = compare_all(o, GoldenKind::kPipeline, run.recorded, ours, run.prefix).rows;
    if (has_eight_bits(o)) put_beside(rows, errors_of_half(o, run));
    all.rows.insert(all.rows.end(), rows.begin(), rows.end());
  }
  const auto merged =
      compare_all(o, GoldenKind::kPipeline, recorded, produce_merged(o, golden, recorded)).rows;
  std::copy_if(merged.begin(), merged.end(), std::back_inserter(all.rows),
               [](const auto& row) { return row.name.starts_with("merged."); });
  return all;
}

}  // namespace

int Comparison::count(Verdict v) const {
  return static_cast<int>(
      std::count_if(rows.begin(), rows.end(), [&](const ComparisonRow& r) { return r.verdict == v; }));
}

Comparison verify(const VerifyOptions& o) {
  const auto file = o.folder / "golden.json";
  if (!std::filesystem::exists(file)) {
    throw Error(Kind::kUsage, str(o.folder.string(), " has no golden.json: name a folder of goldens"));
  }
  try {
    const Json golden = read_json(file);
    if (!golden.is_object()) throw Error(Kind::kUsage, str(file.string(), " must hold a JSON object"));
    const auto kind = kind_of(golden);
    if (kind == GoldenKind::kTokenizers) return verify_tokenizers(o, golden);
    const auto all = weights::read_tensors(o.folder / "golden.safetensors");
    const Tensors recorded(all.begin(), all.end());
    if (recorded.empty())
      throw Error(Kind::kUsage,
                  str((o.folder / "golden.safetensors").string(), " holds no tensor to compare"));
    if (kind == GoldenKind::kPipeline) return verify_pipeline(o, golden, recorded);
    return compare_all(o, kind, recorded, produce(kind, o, golden, recorded));
  } catch (const Json::exception& e) {  // a key that is missing, or a value of another type
    throw Error(Kind::kUsage, str(file.string(), " is not of the form that verify reads: ", json_problem(e)));
  } catch (const c10::Error& e) {  // shapes that no call has
    throw Error(Kind::kUsage, str((o.folder / "golden.safetensors").string(),
                                  ": what is recorded does not fit the call of ",
                                  "golden.json: ", e.what_without_backtrace()));
  }
}

void print(const Comparison& result, std::ostream& out) {
  size_t width = 20;
  for (const auto& r : result.rows) width = std::max(width, r.name.size());
  out << std::left << std::setw(static_cast<int>(width)) << "tensor"
      << "  " << std::setw(18) << "shape"
      << "  max/rms   mean/rms  verdict\n";
  for (const auto& r : result.rows) {
    const char* verdict = r.verdict == Verdict::kPass   ? "ok"
                          : r.verdict == Verdict::kFail ? "FAILED"
                                                        : "missing";
    out << std::left << std::setw(static_cast<int>(width)) << r.name << "  " << std::setw(18) << r.shape
        << "  " << std::setw(8) << scientific(r.max) << "  " << std::setw(8) << scientific(r.mean) << "  "
        << verdict << (r.note.empty() ? "" : "  " + r.note) << "\n";
  }
  const int missing = result.count(Verdict::kMissing), failed = result.count(Verdict::kFail);
  out << static_cast<int>(result.rows.size()) - missing << " compared, " << failed << " failed, " << missing
      << " missing\n";
}

}  // namespace atelier::verify
