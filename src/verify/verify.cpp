#include "verify/verify.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mean.h>

#include <cmath>
#include <cstdio>
#include <iomanip>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>

#include "base/error.h"
#include "base/text.h"
#include "weights/tensors.h"

namespace atelier::verify {
namespace {

// Deeper inside a block than its own outputs: an implementation need not produce them.
bool is_inner(const std::string& name) {
  static const std::regex deeper(
      R"((.*\.)?block\.((single_)?transformer_blocks\.\d+\.[^0-9].*|time_text_embed\..+|(encoder|decoder)\.(down|up)_blocks\.\d+\..+))");
  return std::regex_match(name, deeper);
}

// Inputs of the call, and what only describes it.
bool is_input(const std::string& name, const std::string& family) {
  static const std::regex input(R"(noise|noise\.packed|.*\.sched_noise|step\d+\.in\..*|x0|.*\.long_ids)");
  static const std::regex picture(R"(.*\.(x|z|input))");
  return std::regex_match(name, input) || (family == "vae" && std::regex_match(name, picture));
}

struct Tolerance {
  double max, mean;  // kPsnr: at least `max` decibels for numbers that span `mean`
  enum { kRelative, kAbsolute, kPsnr } kind = kRelative;
};

// The table of goldens/README.md.
Tolerance tolerance_of(const std::string& name, bool half, const Json& golden) {
  const std::string family = golden.value("family", "");
  const auto ends = [&](std::string_view s) { return name.size() >= s.size() && name.ends_with(s); };
  if (ends("timesteps") || ends("sigmas") || ends("init_noise_sigma")) return {1e-6, 1e-6};
  if (family == "schedulers") return {1e-5, 1e-5};
  if (family == "vae" || family == "text_encoders" || name.starts_with("prompt.") ||
      name.starts_with("negative."))
    return {3e-5, 3e-5};
  if (name == "image")
    return half ? Tolerance{38, 1, Tolerance::kPsnr} : Tolerance{2e-4, 2e-4, Tolerance::kAbsolute};
  if (half && name == "vae.out") return {38, 2, Tolerance::kPsnr};  // the image before its range is halved
  if (half) return {1e-1, 2e-2};
  const bool first = name.starts_with("block.") || name.starts_with("step0.");
  return first ? Tolerance{3e-5, 3e-5} : Tolerance{2e-4, 2e-4};
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

bool wanted(const VerifyOptions& o, const std::string& name) {
  if (o.only.empty()) return true;
  for (const auto& glob : o.only) {
    if (glob_matches(glob, name)) return true;
  }
  return false;
}

Comparison compare_all(const VerifyOptions& o, const Json& golden,
                       const std::map<std::string, at::Tensor>& recorded, const Produced& ours) {
  const bool half = o.denoiser == at::kBFloat16 || o.denoiser == at::kHalf;
  const std::string family = golden.value("family", "");
  Comparison result;
  for (const auto& name : ours.order) {
    const auto found = recorded.find(name);
    const auto mine = ours.tensors.find(name);
    if (found == recorded.end() || mine == ours.tensors.end() || !wanted(o, name) || is_input(name, family))
      continue;
    result.rows.push_back(compare(name, mine->second, found->second, tolerance_of(name, half, golden)));
  }
  for (const auto& [name, value] : recorded) {
    if (ours.tensors.count(name) || !wanted(o, name) || is_input(name, family) || is_inner(name)) continue;
    result.rows.push_back({name, shape_text(value), "not produced", 0, 0, Verdict::kMissing});
  }
  return result;
}

}  // namespace

int Comparison::count(Verdict v) const {
  return static_cast<int>(
      std::count_if(rows.begin(), rows.end(), [&](const ComparisonRow& r) { return r.verdict == v; }));
}

namespace {

Comparison verify_kind(const VerifyOptions& o, const Json& golden) {
  const std::string family = golden.value("family", "");
  if (family == "tokenizers") return verify_tokenizers(o, golden);
  const auto all = weights::read_tensors(o.folder / "golden.safetensors");
  const std::map<std::string, at::Tensor> recorded(all.begin(), all.end());
  Produced ours;
  if (family == "vae") {
    ours = produce_vaes(o, golden, recorded);
  } else if (family == "text_encoders") {
    ours = produce_encoders(o, golden, recorded);
  } else if (family == "schedulers") {
    ours = produce_schedules(o, golden, recorded);
  } else {
    ours = produce_pipeline(o, golden, recorded);
  }
  return compare_all(o, golden, recorded, ours);
}

}  // namespace

Comparison verify(const VerifyOptions& o) {
  const auto file = o.folder / "golden.json";
  if (!std::filesystem::exists(file)) {
    throw Error(Kind::kUsage, str(o.folder.string(), " has no golden.json: name a folder of goldens"));
  }
  try {
    return verify_kind(o, read_json(file));
  } catch (const Json::exception& e) {  // a key that is missing, or a value of another type
    throw Error(Kind::kUsage, str(file.string(), " is not of the form that verify reads: ", e.what()));
  }
}

void print(const Comparison& result, std::ostream& out) {
  size_t width = 20;
  for (const auto& r : result.rows) width = std::max(width, r.name.size());
  const auto number = [](double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2e", v);
    return std::string(text);
  };
  out << std::left << std::setw(static_cast<int>(width)) << "tensor"
      << "  " << std::setw(18) << "shape"
      << "  max/rms   mean/rms  verdict\n";
  for (const auto& r : result.rows) {
    const char* verdict = r.verdict == Verdict::kPass   ? "ok"
                          : r.verdict == Verdict::kFail ? "FAILED"
                                                        : "missing";
    out << std::left << std::setw(static_cast<int>(width)) << r.name << "  " << std::setw(18) << r.shape
        << "  " << std::setw(8) << number(r.max) << "  " << std::setw(8) << number(r.mean) << "  " << verdict
        << (r.note.empty() ? "" : "  " + r.note) << "\n";
  }
  const int missing = result.count(Verdict::kMissing), failed = result.count(Verdict::kFail);
  out << static_cast<int>(result.rows.size()) - missing << " compared, " << failed << " failed, " << missing
      << " missing\n";
}

}  // namespace atelier::verify
