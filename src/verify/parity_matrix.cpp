#include "verify/parity_matrix.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "pipeline/deterministic.h"
#include "pipeline/engine_config.h"
#include "pipeline/model_repo.h"
#include "pipeline/request_sampler.h"
#include "verify/requests.h"
#include "verify/thread_ranks.h"

namespace atelier::verify {
namespace {

struct Drawn {
  at::Tensor latents;
  std::vector<media::Artifact> pictures;
};

Drawn draw(const pipeline::ModelRepo& folder, const plan::ParallelConfig& degrees,
           std::span<const request::Request> batch, const pipeline::LoadOptions& load) {
  pipeline::ActivationRecorder collector;
  Drawn d;
  d.pictures = generate_on_ranks(folder, degrees, load, batch, &collector);
  d.latents = collector.tensors().at("latents.final").to(at::kDouble);
  return d;
}

constexpr double kRoundedOtherwise = 1e-3, kNone = 1e-12;

// Most that a layout's error may be: of the latents, of 8-bit values in levels, and their share that differs.
struct MatrixTolerance {
  double latents;
  int levels;
  double differing;
};

// A picture, or the frames of a video.
std::vector<const media::Image*> frames_of(const media::Artifact& artifact) {
  if (const auto* image = std::get_if<media::Image>(&artifact)) return {image};
  std::vector<const media::Image*> frames;
  for (const auto& frame : std::get<media::Video>(artifact).frames) frames.push_back(&frame);
  return frames;
}

void compare_pixels(MatrixRow& row, const std::vector<media::Artifact>& a,
                    const std::vector<media::Artifact>& b) {
  int64_t values = 0, other = 0;
  const auto compare = [&](const media::Image& one, const media::Image& another) {
    const auto &x = one.rgb, &y = another.rgb;
    for (size_t k = 0; k < x.size() && k < y.size(); ++k) {
      const int d = std::abs(int{x[k]} - int{y[k]});
      row.levels = std::max(row.levels, d);
      other += d != 0;
      ++values;
    }
  };
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const auto x = frames_of(a[i]), y = frames_of(b[i]);
    for (size_t f = 0; f < x.size() && f < y.size(); ++f) compare(*x[f], *y[f]);
  }
  row.differing = values ? static_cast<double>(other) / static_cast<double>(values) : 0;
}

// Fills in the comparison.
void judge(MatrixRow& row, const Drawn& ours, const Drawn& reference, const MatrixTolerance& tolerance) {
  const double rms = std::sqrt(reference.latents.square().mean().item<double>());
  row.max_error = (ours.latents - reference.latents).abs().max().item<double>() / rms;
  compare_pixels(row, ours.pictures, reference.pictures);
  const bool same_picture = row.levels <= tolerance.levels && row.differing < tolerance.differing;
  const bool same_latents = row.max_error <= tolerance.latents;
  row.passed = same_latents && same_picture;
  if (!row.passed) row.problem = same_latents ? "pixels differ" : "latents differ";
}

}  // namespace

std::vector<MatrixRow> run_matrix(const Json& matrix, const std::filesystem::path& root,
                                  const std::function<void(const MatrixRow&)>& on_row) {
  std::vector<MatrixRow> rows;
  const double general = matrix.value("tolerance", 0.0);
  const bool is_deterministic = matrix.value("deterministic", false);
  for (const auto& c : matrix.at("cases")) {
    const auto model = c.at("model").get<std::string>();
    const auto folder = pipeline::ModelRepo::open(root / model);
    const auto batch = requests_of(c.at("request"), usual_request(folder), model,
                                   {.folder = root, .usual = pipeline::usual_strength(folder.family())});
    pipeline::LoadOptions load;
    load.denoiser = c.value("dtype", "float32") == "float64" ? at::kDouble : at::kFloat;
    load.tier = pipeline::tier_named(c.value("tier", "exact"));
    load.attention_dtype = pipeline::attention_dtype_named(c.value("attention_dtype", "auto"));
    MatrixTolerance tolerance{c.value("tolerance", general), c.value("levels", 1),
                              c.value("differing", kRoundedOtherwise)};
    if (is_deterministic) tolerance = {0, 0, kNone}, load.attention = nn::SdpaBackend::kOrdered;
    const Drawn plain = draw(folder, {}, batch, load);
    const auto compare = [&](const std::string& layout, bool stale) {
      const auto degrees = plan::parse_strategy(layout);
      if (is_deterministic && !pipeline::deterministic_problem({.layout = degrees}).empty()) return;
      MatrixRow row{.model = model,
                    .layout = layout,
                    .reference = stale ? "the same stale schedule on one rank" : "one rank"};
      row.ranks = plan::world_size(degrees);
      try {
        Drawn reference = plain;
        if (stale) {
          plan::ParallelConfig one{
              .patches = plan::patch_count(degrees), .warmup = degrees.warmup, .simulate = true};
          reference = draw(folder, one, batch, load);
        }
        judge(row, draw(folder, degrees, batch, load), reference, tolerance);
      } catch (const std::exception& e) {
        row.problem = e.what();
      }
      if (on_row) on_row(row);
      rows.push_back(row);
    };
    for (size_t i = 0; is_deterministic && batch.size() > 1 && i < batch.size(); ++i) {
      MatrixRow row{.model = model, .layout = str("picture ", i + 1, " alone"), .reference = "the batch"};
      const auto alone = draw(folder, {}, std::span(batch).subspan(i, 1), load);
      judge(row, alone, {plain.latents.narrow(0, static_cast<int64_t>(i), 1), {plain.pictures[i]}},
            tolerance);
      if (on_row) on_row(row);
      rows.push_back(row);
    }
    for (const auto& layout : c.value("exact", std::vector<std::string>{})) compare(layout, false);
    for (const auto& layout : c.value("stale", std::vector<std::string>{})) compare(layout, true);
  }
  return rows;
}

std::string line_of(const MatrixRow& r) {
  char error[32];
  std::snprintf(error, sizeof error, "%.1e", r.max_error);
  return str(r.passed ? "ok      " : "FAILED  ", error,
             r.levels == 0 ? "  same pixels  " : str("  ", r.levels, " level in ", r.differing * 100, " %  "),
             r.ranks, " ranks  ", r.layout, "  against ", r.reference, "  (", r.model, ")",
             r.problem.empty() ? "" : ": ", r.problem);
}

}  // namespace atelier::verify
