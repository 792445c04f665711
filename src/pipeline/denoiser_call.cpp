#include "pipeline/denoiser_call.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace atelier::pipeline {
namespace {

// Pixels per latent, to ask families for a grid of latents: any that divides evenly does.
constexpr int64_t kSpatial = 8;

models::Grid grid_of(const models::Family& family, const Json& config, const at::Tensor& latents) {
  if ((latents.dim() != 4 && latents.dim() != 5) || latents.numel() == 0)
    throw Error(Kind::kUsage, atelier::str("latents of ", latents.sizes(),
                                           "; 4 or 5 dimensions, each of at least 1, are needed"));
  const int64_t frames = latents.dim() == 5 ? latents.size(2) : 1;
  auto grid = family.grid(config, kSpatial, latents.size(-2) * kSpatial, latents.size(-1) * kSpatial, frames);
  auto wanted = grid.latent(latents.size(0));
  grid.as_published = true;
  if (family.call.channels) wanted[1] = family.call.channels(config);
  if (latents.sizes() != wanted) {
    throw Error(Kind::kUsage, atelier::str("latents of ", latents.sizes(), " were given, the family ",
                                           family.name, " takes ", at::IntArrayRef(wanted)));
  }
  return grid;
}

// How many latent frames in front are given: their time is 0. Throws Error(kUsage) where times differ
// otherwise.
int64_t known_frames(const at::Tensor& times, double time) {
  if (times.dim() == 0 || time == 0) return 0;
  int64_t known = 0;
  while (known < times.size(0) && times[known].item<double>() == 0) ++known;
  if (!times.narrow(0, known, times.size(0) - known).eq(time).all().item<bool>())
    throw Error(Kind::kUsage,
                "times that differ from frame to frame; only frames in front may be given, at time 0");
  return known;
}

// Does sample i go into one pass with the one before it?
bool is_like_last(const DenoiserCall& call, int64_t i) {
  const auto same = [i](const at::Tensor& t) { return t.dim() > 1 || at::equal(t[i], t[i - 1]); };
  if (!at::equal(call.timesteps[i], call.timesteps[i - 1])) return false;
  return std::all_of(call.inputs.begin(), call.inputs.end(),
                     [&](const auto& named) { return same(named.second); });
}

// What the family makes of the inputs of a group, and what is given beside its noisy latents.
void condition(const models::Family& family, const Json& config, const DenoiserCall& call,
               const CheckedCall& checked, SampleGroup& group) {
  const auto of_group = [&](const at::Tensor& t) {
    return t.narrow(0, group.samples.begin, group.samples.size);
  };
  models::NamedTensors inputs;
  for (const auto& [name, tensor] : call.inputs) inputs[name] = of_group(tensor);
  models::NetworkInputs named(family.name, std::move(inputs), group.samples.size);
  group.conditioning = family.call.condition(config, named);
  if (family.call.given) group.given = family.call.given(config, named, checked.grid);
  named.refuse_rest();
  const int64_t own = checked.noisy.size(1), all = call.latents.size(1);
  if (all > own) group.given.channels = of_group(call.latents).narrow(1, own, all - own);
  const auto times = call.timesteps[group.samples.begin];
  const int64_t known = known_frames(times, times.max().item<double>());
  if (known > 0) group.given.known = of_group(checked.noisy).narrow(2, 0, known);
  if (known > 0) group.conditioning.whole["given_frame"] = at::ones({1});
  if (group.given.control_scales.defined())
    group.conditioning.whole["control_scales"] = group.given.control_scales;
}

}  // namespace

CheckedCall check_call(const models::Family& family, const Json& config, const DenoiserCall& call,
                       int experts, int64_t first) {
  if (!family.call.condition)
    throw Error(Kind::kUsage,
                str("one evaluation of a denoiser of the family ", family.name,
                    " was asked for; the family does not say what such a call takes: have whole "
                    "pictures drawn, by atelier t2i or ComfyUI's Atelier Text to Image"));
  if (call.expert < 0 || call.expert >= experts)
    throw Error(Kind::kUsage, str("expert ", call.expert, " was asked for; the denoisers of ", family.name,
                                  " are 0 to ", experts - 1));
  CheckedCall out{grid_of(family, config, call.latents), {}, {}};
  out.noisy = call.latents.narrow(1, 0, out.grid.latent_channels);
  const int64_t batch = call.latents.size(0);
  const auto& times = call.timesteps;
  const bool is_by_frame =
      times.dim() == 2 && out.grid.latent_frames > 0 && times.size(1) == out.grid.latent_frames;
  if (!(times.dim() == 1 || is_by_frame) || times.size(0) != batch)
    throw Error(Kind::kUsage, atelier::str("timesteps of ", times.sizes(), " for a batch of ", batch));
  for (const auto& [name, tensor] : call.inputs) {
    if (tensor.dim() == 0 || tensor.size(0) != batch)
      throw Error(Kind::kUsage, atelier::str(name, " of ", tensor.sizes(), " for a batch of ", batch));
  }
  for (int64_t i = 0; i < batch; ++i) {
    if (i == 0 || i == first || !is_like_last(call, i)) {
      const double time = times[i].max().item<double>() / family.pipeline_time_scale;
      out.groups.push_back({{i, 0}, static_cast<float>(time), {}, {}});
    }
    ++out.groups.back().samples.size;
  }
  for (auto& group : out.groups) condition(family, config, call, out, group);
  return out;
}

SingleEvaluation::SingleEvaluation(float time, int expert) {
  step_.time = time;
  step_.expert = expert;
}

at::Tensor SingleEvaluation::step(const at::Tensor& prediction, int, const at::Tensor& x, const at::Tensor&) {
  return prediction.to(x.scalar_type());
}

at::Tensor SingleEvaluation::add_noise(const at::Tensor&, const at::Tensor&, int) const {
  check_failed("a single evaluation has no noise", __FILE__, __LINE__);
}

void SingleEvaluation::hand_over_below(double, double) {
  check_failed("a single evaluation has one denoiser", __FILE__, __LINE__);
}

}  // namespace atelier::pipeline
