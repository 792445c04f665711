// The first part of a request: its plan, what it is conditioned on, and what it begins with.
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "pipeline/deterministic.h"
#include "pipeline/given_latents.h"
#include "pipeline/input_pictures.h"
#include "pipeline/pipeline.h"
#include "pipeline/request_sampler.h"
#include "sampling/noise.h"

namespace atelier::pipeline {

namespace {

// The negative branch has sizes of its own where both are given; otherwise it is told the same. Of an edit
// each that is given is its own, but for the crop, which is a model's own that takes a score beside it.
models::PictureSizes sizes_of(const request::Request& r, request::CfgBranch branch, bool has_score) {
  const bool has_own = r.negative_original_size && r.negative_target_size;
  if (branch == request::CfgBranch::kNegative && r.image)
    return {r.negative_original_size ? r.negative_original_size : r.original_size,
            has_score ? r.negative_crops_coords_top_left : r.crops_coords_top_left,
            r.negative_target_size ? r.negative_target_size : r.target_size};
  if (branch == request::CfgBranch::kPositive || !has_own)
    return {r.original_size, r.crops_coords_top_left, r.target_size};
  return {r.negative_original_size, r.negative_crops_coords_top_left, r.negative_target_size};
}

// The prompts of one branch as the family sees them.
models::PromptBatch prompts_of(const ModelRepo& model, request::Requests batch, request::CfgBranch branch) {
  const auto& r = batch.front();
  models::PromptBatch out{
      .is_negative = branch == request::CfgBranch::kNegative,
      .is_absent = request::is_absent(r, branch),
      .pipeline = model.index(),
      .denoiser = model.denoiser(),
      .max_sequence_length = *r.max_sequence_length,
      .clip_skip = branch == request::CfgBranch::kPositive ? r.clip_skip.value_or(0) : 0,
      .height = *r.height,
      .width = *r.width,
      .sizes = sizes_of(r, branch, model.index().value("requires_aesthetics_score", false)),
      .guidance_scale = *r.guidance_scale};
  for (size_t encoder = 0; encoder < out.texts.size(); ++encoder) {
    for (const auto& one : batch) out.texts[encoder].push_back(request::prompt_of(one, branch, encoder));
  }
  return out;
}

// Whether its model is given latents of what it is shown.
bool is_shown(const ModelRepo& model, const request::Request& r) {
  return model.family().given && (has_control_stream(model) || r.image || r.control_video);
}

// In place of noise. Models of videos are shown pictures as conditioning.
bool begins_with_picture(const ModelRepo& model, const request::Request& r) {
  return r.image && !model.draws_videos();
}

}  // namespace

// What depends on sizes and steps only. Throws Error(kUsage) for what cannot be.
void Pipeline::prepare(const request::Request& r, Denoise& work) {
  const auto& family = model_.family();
  if (!model_.is_whole())
    throw Error(Kind::kUsage, str(model_.label(), " is loaded in part only, it draws nothing"));
  if (r.guidance_is_cfg != (family.guidance_scale == models::GuidanceScale::kClassifierFree))
    throw Error(Kind::kUsage, str(r.name, ": its guidance was not settled for ", family.name));
  work.cfg = {request::cfg_scale(r), r.guidance_rescale.value_or(0)};
  const auto references = r.reference_images ? std::ssize(*r.reference_images) : 0;
  work.grid = model_.grid(*r.height, *r.width, r.num_frames.value_or(1), references);
  work.has_small_previews = model_.draws_videos() || r.preview_every.value_or(0) > 0;
  sampler_ = sampler_of(
      r, model_.scheduler(),
      {.linear_sigmas = family.sigmas == models::Sigmas::kLinearToInverse, .tokens = work.grid.tokens()},
      family.image_to_image.cut);
  hand_over(r);
  if (const auto problem = step_cache_problem(r, model_, parallel_context_.degrees()); !problem.empty())
    throw Error(Kind::kUsage, str(r.name, ": ", problem));
  if (options_.attention == nn::SdpaBackend::kOrdered) {
    if (const auto problem = deterministic_problem(r); !problem.empty())
      throw Error(Kind::kUsage, str(r.name, ": ", problem));
  }
  work.cache = step_cache_rule(r, family, model_.denoiser());
  work.sampler = sampler_.get();
}

// The second denoiser runs the steps below its boundary, of as much noise as the folder says.
void Pipeline::hand_over(const request::Request& r) {
  const Json boundary = model_.index().value("boundary_ratio", Json());
  if (!boundary.is_number() || experts_.size() < 2) return;
  const double trained = model_.scheduler().value("num_train_timesteps", 1000.0);
  sampler_->hand_over_below(boundary.get<double>() * trained, r.guidance_scale_2.value_or(*r.guidance_scale));
}

// Throws Error(kUsage) for a control video without what follows it, or the other way round.
void Pipeline::check_control(const request::Request& r, std::span<const request::AdapterRef> refs) {
  const auto problem = control_problem(model_, adapters_.widening(refs), r);
  if (!problem.empty()) throw Error(Kind::kUsage, str(r.name, ": ", problem));
}

// What a request needs besides its conditioning. Its noise is drawn beside the encoders: the CPU needs longer
// for it than they need on a GPU.
std::future<Pipeline::DrawnNoise> Pipeline::plan(request::Requests batch, Denoise& work, ChangesOf& changes) {
  using sampling::NoiseSource;
  request::check_batch(batch);
  const auto& first = batch.front();
  prepare(first, work);
  const auto refs = request::adapter_refs(first.lora.value_or(std::vector<std::string>{}));
  changes = adapters_.bind(refs);
  check_control(first, refs);
  std::vector<uint64_t> seeds;
  for (const auto& r : batch) seeds.push_back(*r.seed);
  return std::async(std::launch::async,
                    [seeds, size = work.grid.latent(1), has_image = begins_with_picture(model_, first),
                     has_mask = first.mask.has_value()] {
                      DrawnNoise drawn{NoiseSource(seeds, size), {}, {}};
                      if (has_image) drawn.picture = drawn.source.draw(NoiseSource::kPicture);
                      drawn.initial = drawn.source.draw(NoiseSource::kInitial);
                      if (has_mask) drawn.source.draw(NoiseSource::kMasked);  // moves the generators on
                      return drawn;
                    });
}

// The branches' conditioning on every rank, and the encoders' adapters changed. problem: what this rank met
// before; shown: gets what the leader reads of pictures and videos.
Conditionings Pipeline::encode_texts(request::Requests batch, const Denoise& work,
                                     const StepCallbacks& callbacks, const ChangesOf& changes,
                                     const std::exception_ptr& problem, ShownInputs& shown) {
  ActivationRecorder unheard;  // encoders that are shared do the same on all ranks
  auto* const probes = callbacks.probes && !leads() ? &unheard : callbacks.probes;
  const auto on_note = leads() ? callbacks.on_note : nullptr;
  at::Tensor states;  // of pictures
  const auto encode = [&] {
    timing_.reread_bytes += texts_->adapt(changes);
    const TextStage::Stay both_branches(*texts_);
    const auto one = [&](request::CfgBranch branch, const char* prefix) {
      auto prompts = prompts_of(model_, batch, branch);
      prompts.image_states = states;
      return texts_->condition(prompts, probes, prefix, on_note);
    };
    Conditionings branches{one(request::CfgBranch::kPositive, "prompt.")};
    if (work.cfg.scale > 1) branches.push_back(one(request::CfgBranch::kNegative, "negative."));
    return branches;
  };
  auto of_leader = from_leader(parallel_context_.replica(), options_.device, [&] {
    if (problem) std::rethrow_exception(problem);
    if (is_shown(model_, batch.front()))
      shown = read_shown(batch, *batch.front().height, *batch.front().width);
    states = seen(shown, probes);
    tell(batch, work, on_note);
    if (!encoder_sharers()) return encode();
    nn::Conditioning looked_at;
    if (states.defined()) looked_at.whole["states"] = states;
    return Conditionings{looked_at};
  });
  if (problem) std::rethrow_exception(problem);
  if (!encoder_sharers()) return of_leader;
  const auto& looked_at = of_leader.front().whole;
  if (const auto found = looked_at.find("states"); found != looked_at.end()) states = found->second;
  return from_all(*encoder_sharers(), options_.device, encode);
}

// What a picture's maker should know, on the leader.
void Pipeline::tell(request::Requests batch, const Denoise& work, const TextNote& on_note) const {
  for (size_t i = 0; on_note && i < batch.size(); ++i) {
    if (!work.grid.note.empty()) on_note(i, work.grid.note);
    if (batch[i].control_video && !has_control_stream(model_))
      on_note(i, "control LoRAs are experimental: look at what they make");
  }
}

// The leader sees first whether the request can be done at all: its verdict is everybody's.
std::future<Pipeline::DrawnNoise> Pipeline::condition(request::Requests batch, Denoise& work,
                                                      const StepCallbacks& callbacks) {
  RECORD_USER_SCOPE("encode");
  auto* const probes = callbacks.probes;
  std::future<DrawnNoise> noise;
  std::exception_ptr problem;
  ChangesOf changes;
  timing_.reread_bytes = 0;
  try {
    noise = plan(batch, work, changes);
  } catch (...) {
    problem = std::current_exception();
  }
  ShownInputs shown;  // on the leader
  work.branches = encode_texts(batch, work, callbacks, changes, problem, shown);
  adapt(changes);
  for (size_t b = 0; probes && b < work.branches.size(); ++b) {
    const std::string prefix = b == 0 ? "prompt." : "negative.";
    for (const auto& t : work.branches[b].streams) probes->whole(prefix + "embeds", t.transpose(0, 1));
    for (const auto& [name, t] : work.branches[b].whole) probes->whole(prefix + name, t);
  }
  if (is_shown(model_, batch.front())) show(batch, shown, work, probes);
  return noise;
}

// States of the pictures that the model's image encoder sees; undefined: none.
at::Tensor Pipeline::seen(const ShownInputs& shown, ActivationRecorder* probes) const {
  if (!vision_ || shown.image_files.empty()) return {};
  std::vector<std::vector<media::Image>> pictures;
  for (size_t i = 0; i < shown.image_files.size(); ++i) {
    pictures.push_back({shown.image_files[i]});
    if (!shown.last_files.empty()) pictures.back().push_back(shown.last_files[i]);
  }
  return vision_->encode(pictures, probes);
}

// Latents that the denoiser is given: made by the leader, or of everybody's rows.
void Pipeline::show(request::Requests batch, const ShownInputs& on_leader, Denoise& work,
                    ActivationRecorder* probes) const {
  const auto& family = model_.family();
  const auto facts = models::find_vae(model_.vae()).facts(model_.vae());
  const auto by = coders(work.grid.latent(std::ssize(batch)));
  const bool by_rows = by == CodedBy::kAllRanks;
  const auto encode = [&](const at::Tensor& video) { return images_->encode_mode(video, by).to(at::kFloat); };
  const auto make = [&](const models::ShownPictures& pictures) {
    return family.given(model_.index(), model_.denoiser(), work.grid, pictures, encode);
  };
  auto shown = shown_by(batch);
  models::GivenLatents given;
  const auto message = from_leader(parallel_context_.replica(), options_.device, [&] {
    const auto pictures = shown_pictures(batch, on_leader, facts.spatial);
    if (probes) record(pictures, *probes);
    return Conditionings{by_rows ? packed(pictures) : packed(make(pictures))};
  });
  if (by_rows) {
    unpack(message.front(), shown);
    given = make(shown);
  } else {
    unpack(message.front(), given);
  }
  if (probes && leads()) record(given, *probes);
  const auto options = at::TensorOptions(options_.denoiser == at::kDouble ? at::kDouble : at::kFloat);
  work.given = tokens_of(given, family, work.grid, options.device(options_.device));
  for (auto& branch : work.branches) {
    if (given.known.defined()) branch.whole["given_frame"] = at::ones({1}, options);
    if (given.control_scales.defined()) branch.whole["control_scales"] = given.control_scales;
  }
}

// The leader reads the files and encodes them, unless all ranks encode their rows.
Pipeline::EncodedPictures Pipeline::encode(request::Requests batch, const models::Grid& grid) const {
  if (!begins_with_picture(model_, batch.front())) return {};
  const auto by = coders(grid.latent(std::ssize(batch)));
  const bool by_rows = by == CodedBy::kAllRanks;
  const int64_t spatial = models::find_vae(model_.vae()).facts(model_.vae()).spatial;
  const auto of_leader = from_leader(parallel_context_.replica(), options_.device, [&] {
    const auto inputs = read_inputs(batch, grid, spatial);
    nn::Conditioning sent;
    sent.whole["drawn"] = inputs.drawn;
    sent.whole["picture"] = by_rows ? inputs.pixels : images_->encode(from_bytes(inputs.pixels), by);
    return Conditionings{sent};
  });
  const auto& whole = of_leader.front().whole;
  const auto& picture = whole.at("picture");
  return {.moments = by_rows ? images_->encode(from_bytes(picture), by) : picture,
          .drawn = whole.at("drawn"),
          .strength = *batch.front().strength};
}

// In place of noise, as noisy as the first step wants it. A masked edit of full strength begins with noise
// alone, as in the reference. clean [B, C, h, w]; noise: packed.
void Pipeline::begin_at(const EncodedPictures& pictures, const at::Tensor& clean, const at::Tensor& noise,
                        Denoise& work) const {
  const auto pack = model_.family().pack;
  const auto packed = pack(clean).contiguous().to(noise.scalar_type());
  const bool is_masked = pictures.drawn.defined();
  if (!is_masked || pictures.strength < 1) work.latents = work.sampler->add_noise(packed, noise, 0);
  if (!is_masked) return;
  const auto drawn = pictures.drawn.to(options_.device).to(at::kBool).unsqueeze(1);
  work.masked = {packed, noise, pack(drawn.expand(clean.sizes())).contiguous()};
}

void Pipeline::begin_with(DrawnNoise drawn, const GivenNoise& given, const EncodedPictures& pictures,
                          Denoise& work, ActivationRecorder* probes) const {
  const auto source = std::make_shared<sampling::NoiseSource>(std::move(drawn.source));
  const auto noise = given.initial.defined() ? given.initial : drawn.initial;
  const auto type = options_.denoiser == at::kDouble ? at::kDouble : at::kFloat;
  const auto packed = model_.family().pack(noise.to(options_.device)).contiguous();
  work.latents = packed.to(type) * work.sampler->init_noise_sigma();
  work.noise = [this, source, type, steps = given.steps](int step) {
    const auto at = static_cast<size_t>(step);
    const bool is_given = at < steps.size() && steps[at].defined();
    return model_.family().pack(is_given ? steps[at] : source->draw(step)).to(type);
  };
  const auto record = [&](const char* name, const at::Tensor& value) {
    if (probes) probes->whole(name, value);
  };
  if (pictures.moments.defined()) {
    const auto of_picture = given.picture.defined() ? given.picture : drawn.picture;
    const auto clean = sampled_latents(pictures.moments.to(options_.device), of_picture.to(options_.device),
                                       models::find_vae(model_.vae()).facts(model_.vae()));
    record("image.moments", pictures.moments);
    record("image.latents", clean);
    if (pictures.drawn.defined()) record("mask", pictures.drawn.unsqueeze(1).to(at::kFloat));
    begin_at(pictures, clean, packed.to(type), work);
  }
  const auto numbers = [](std::span<const float> v) {
    return at::tensor(at::ArrayRef<float>(v.data(), v.size()));
  };
  record("noise", noise);
  record("noise.packed", packed.transpose(0, 1));
  record("timesteps", numbers(sampling::times(*work.sampler)));
  record("sigmas", numbers(work.sampler->sigmas()));
}

}  // namespace atelier::pipeline
