// What callers ask of a loaded model that own the rest of the pipeline: one evaluation of the
// denoiser, one decode.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include "models/vae.h"
#include "pipeline/denoiser_call.h"
#include "pipeline/device.h"
#include "pipeline/given_latents.h"
#include "pipeline/pipeline.h"

namespace atelier::pipeline {

using Clock = std::chrono::steady_clock;

namespace {

nn::Conditioning on(nn::Conditioning given, c10::Device device) {
  for (auto& stream : given.streams) stream = stream.to(device);
  for (auto& [name, tensor] : given.whole) tensor = tensor.to(device);
  return given;
}

// What ranks find out for themselves, all of them the same.
template <class F>
auto as_request_error(const F& work) {
  try {
    return work();
  } catch (const Error& e) {
    throw RequestError(e.kind(), e.what());
  }
}

}  // namespace

void Pipeline::adapt(const std::vector<std::string>& adapters) {
  auto changes = as_request_error([&] { return adapters_.bind(request::adapter_refs(adapters)); });
  timing_.reread_bytes = texts_ ? texts_->adapt(changes) : 0;
  adapt(changes);
}

// Of a batch in two halves each CFG rank evaluates its own, as if the other were not there.
at::Tensor Pipeline::predict(const DenoiserCall& call, const StepCallbacks& callbacks) {
  const c10::InferenceMode guard;
  const auto ordered = arithmetic();
  lap_ = Clock::now();
  auto* const halves = parallel_context_.cfg();
  const int64_t batch = call.latents.dim() > 0 ? call.latents.size(0) : 0;
  const int64_t first = halves && batch > 1 ? (batch + 1) / 2 : 0;
  const auto checked = as_request_error([&] {
    if (!executor_) throw Error(Kind::kUsage, "no denoiser is loaded");
    return check_call(model_.family(), model_.denoiser(), call, static_cast<int>(model_.experts().size()),
                      first);
  });
  adapt(call.adapters);
  const bool is_second = first > 0 && halves->rank() == 1;
  std::vector<at::Tensor> parts;
  // Both halves count the groups of both, so that they end at the same place.
  const int groups = static_cast<int>(checked.groups.size());
  for (int i = 0; i < groups; ++i) {
    const auto& group = checked.groups[static_cast<size_t>(i)];
    const bool is_mine = first == 0 || (group.samples.begin >= first) == is_second;
    if (is_mine) parts.push_back(evaluate(call, checked, group, i, callbacks));
  }
  if (callbacks.may_begin && !callbacks.may_begin(groups)) throw Error(Kind::kInterrupted, "cancelled");
  lap("denoise");
  if (!parts.front().defined()) return {};
  return first == 0 ? at::cat(parts) : both_halves(at::cat(parts), batch, first);
}

at::Tensor Pipeline::evaluate(const DenoiserCall& call, const CheckedCall& checked, const SampleGroup& group,
                              int step, const StepCallbacks& callbacks) {
  const SingleEvaluation sampler(group.time, call.expert);
  const auto& family = model_.family();
  const auto options = at::TensorOptions(at::kFloat).device(options_.device);
  const auto noisy = checked.noisy.narrow(0, group.samples.begin, group.samples.size).to(options);
  Denoise work{.branches = {on(group.conditioning, options_.device)},
               .grid = checked.grid,
               .sampler = &sampler,
               .latents = family.pack(noisy).contiguous(),
               .given = tokens_of(group.given, family, checked.grid, options)};
  // The last question of each evaluation is the first of the next one.
  const StepCallbacks mine{
      .may_begin = [&](int i) { return i > 0 || !callbacks.may_begin || callbacks.may_begin(step); }};
  const auto tokens = denoise(work, mine);
  return tokens.defined() ? family.unpack(tokens, checked.grid) : tokens;
}

// mine: the samples of this rank's half, on the first stage of each.
at::Tensor Pipeline::both_halves(const at::Tensor& mine, int64_t batch, int64_t first) {
  auto sizes = mine.sizes().vec();
  sizes[0] = batch;
  auto all = at::empty(sizes, mine.options());
  const int64_t sample = all.numel() / batch;
  const int64_t split[] = {first * sample, (batch - first) * sample};
  parallel_context_.cfg()->all_gather(all, mine.contiguous(), split).wait();
  synchronize(options_.device);
  parallel_context_.check_alive();
  return all;
}

at::Tensor Pipeline::decode(const at::Tensor& latents, const StepCallbacks& callbacks) {
  const c10::InferenceMode guard;
  const auto ordered = arithmetic();
  lap_ = Clock::now();
  as_request_error([&] {
    if (!model_.has("vae")) throw Error(Kind::kUsage, "no autoencoder is loaded");
    const auto facts = models::find_vae(model_.vae()).facts(model_.vae());
    if (latents.dim() < 4 || latents.size(1) != facts.latent_channels)
      throw Error(Kind::kUsage,
                  atelier::str("latents of ", latents.sizes(), " were given, the autoencoder takes ",
                               facts.latent_channels, " channels"));
    return 0;
  });
  if (callbacks.may_begin && !callbacks.may_begin(0)) throw Error(Kind::kInterrupted, "cancelled");
  const auto by = coders(latents.sizes());
  if (!images_ || (by == CodedBy::kThisRank && !leads())) return {};
  // The stage takes latents as denoisers leave them.
  const auto z = latents.to(options_.device);
  const auto nothing = at::zeros_like(z);
  const auto facts = models::find_vae(model_.vae()).facts(model_.vae());
  auto pictures = images_->decode(sampled_latents(at::cat({z, nothing}, 1), nothing, facts), by, nullptr);
  synchronize(options_.device);
  parallel_context_.check_alive();
  lap("decode");
  return pictures;
}

}  // namespace atelier::pipeline
