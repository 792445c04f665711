#include "sampling/alpha_schedule.h"

#include <cmath>

#include "base/error.h"
#include "sampling/library_math.h"

namespace atelier::sampling {

NoiseLevel level_at(float alpha) {
  return {lib_sqrt(alpha), lib_sqrt(1 - alpha)};
}

TrainedAlphas trained_alphas(const SchedulerConfig& c, const BetaDefaults& betas) {
  TrainedAlphas out{alphas_cumprod(c, betas, TerminalSnr::kZero)};
  if (!c.flag("set_alpha_to_one", true)) out.last = out.products.front();
  return out;
}

AlphaPlan alpha_plan(const TrainedAlphas& alphas, std::span<const double> timesteps,
                     std::span<const double> next) {
  const auto at = [&](double t) { return t < 0 ? alphas.last : alphas.products[static_cast<size_t>(t)]; };
  AlphaPlan out;
  for (size_t i = 0; i < timesteps.size(); ++i) {
    const double t = timesteps[i];
    if (t < 0 || t >= static_cast<double>(alphas.products.size()))
      throw Error(
          Kind::kUsage,
          str("step ", i, " would be at timestep ", t, ", trained are 0 to ", alphas.products.size() - 1,
              ": take fewer num_inference_steps, or another steps_offset or timestep_spacing"));
    const float a = at(t);
    out.alphas.push_back({a, at(next[i])});
    out.plan.steps.push_back({.time = static_cast<float>(t)});
    out.plan.levels.push_back(level_at(a));
    out.plan.sigmas.push_back(std::sqrt((1 - a) / a));
  }
  out.plan.levels.push_back({});
  out.plan.sigmas.push_back(0);
  return out;
}

ClippedPicture::ClippedPicture(const SchedulerConfig& c, bool clips, const AlphaPlan& plan)
    : type_(prediction_type(c, {PredictionType::kEpsilon, PredictionType::kSample, PredictionType::kV})) {
  c.refuse("thresholding", "it looks at whole pictures, of which a rank may hold a part");
  if (c.flag("clip_sample", clips)) range_ = c.number("clip_sample_range", 1);
  for (const auto& step : plan.alphas) {
    if (step.from == 0 && type_ == PredictionType::kEpsilon)
      refuse_option("prediction_type",
                    "is epsilon, which says nothing where rescale_betas_zero_snr leaves no signal: "
                    "such models predict v_prediction or sample");
  }
}

at::Tensor ClippedPicture::operator()(float alpha, const at::Tensor& x, const at::Tensor& prediction) const {
  const auto picture = picture_of(type_, level_at(alpha), x, prediction);
  return range_ ? picture.clamp(-*range_, *range_) : picture;
}

}  // namespace atelier::sampling
