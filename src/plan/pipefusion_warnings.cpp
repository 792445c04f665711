// What to say where PipeFusion cannot pay.
#include <cmath>

#include "base/error.h"
#include "plan/layouts.h"
#include "plan/percent.h"
#include "plan/pipefusion_quality.h"
#include "plan/route.h"
#include "plan/schedule.h"
#include "plan/simulate.h"

namespace atelier::plan {
namespace {

bool flows(const ParallelConfig& d, int steps) {
  return patch_count(d) > 1 && (steps == 0 || steps > d.warmup);
}

// Measured on another model than the one that is to draw, so it says which.
std::string stale_keys_cost(const ParallelConfig& d, int steps) {
  const auto& m = nearest_measured(steps, patch_count(d), d.warmup);
  return str("; stale keys change the picture: on mini with ", m.steps, " steps, ", m.patches,
             " patches and ", m.warmup, " warm-up, PSNR ", std::round(10 * m.psnr) / 10,
             " dB against one rank and ", percent(m.right), " % of captions right, one rank ",
             percent(right_of_one_rank(steps)), " % (measured, docs/pipefusion.md)");
}

// Share of the stages' time without work, transfers not counted.
double schedule_idle(const ParallelConfig& d, const LayoutQuery& p, int steps) {
  const auto route = plan_for(d, p.model).chunks;
  const auto lists = schedule(route, patch_count(d), steps, d.warmup);
  return 1 - simulate(route, lists, {}, SendMode::kPosted).utilisation();
}

constexpr double kIdleThatPays = 0.2;  // of the stages' time idle, at most
constexpr double kFaithful = 30;       // dB, at least

}  // namespace

std::vector<std::string> warnings(const ParallelConfig& d, const LayoutQuery& query) {
  std::vector<std::string> lines;
  if (d.pipeline == 1) return lines;
  if (!flows(d, query.work.steps)) {
    const std::string why = d.sync || patch_count(d) == 1
                                ? ""
                                : str(" (", query.work.steps, " steps, ", d.warmup, " of them warm-up)");
    const std::string what =
        d.sync ? str(d.pipeline, " exact stages") : str("pipefusion=", d.pipeline, " cannot pay here");
    lines.push_back(str(what, ": every step runs whole", why, ", one stage after another, so at least ",
                        percent(1 - 1.0 / d.pipeline), " % of the stages' time is idle; ", d.pipeline,
                        " stages share the weights' memory, but a picture gets no faster"));
    return lines;
  }
  const int patches = patch_count(d);
  if (patches < d.pipeline) {
    lines.push_back(str(patches, " patches for ", d.pipeline, " stages: at least ",
                        percent(1 - static_cast<double>(patches) / d.pipeline),
                        " % of the time is idle; use patches=", d.pipeline, " or more"));
  }
  if (query.work.steps == 0) return lines;
  const double lost = schedule_idle(d, query, query.work.steps);
  const bool is_faithful = nearest_measured(query.work.steps, patches, d.warmup).psnr >= kFaithful;
  if (lost < kIdleThatPays && is_faithful) return lines;
  lines.push_back(str(
      "pipefusion=", d.pipeline, " with ", patches, " patches and ", query.work.steps, " steps, ", d.warmup,
      " of them warm-up: ", percent(static_cast<double>(d.warmup) / query.work.steps),
      " % of the steps are serial; predicted ", std::round((1 - lost) * d.pipeline * 100) / 100,
      " times the speed of one stage where ", d.pipeline, " would be ideal, ", percent(lost),
      " % of the stages' time idle (modelled, transfers not counted)", stale_keys_cost(d, query.work.steps)));
  return lines;
}

}  // namespace atelier::plan
