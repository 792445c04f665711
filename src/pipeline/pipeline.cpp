#include "pipeline/pipeline.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "nn/streamed_memory.h"
#include "parallel/shards.h"
#include "pipeline/device.h"
#include "pipeline/input_pictures.h"
#include "pipeline/request_sampler.h"
#include "pipeline/tier.h"
#include "sampling/noise.h"

namespace atelier::pipeline {

using Clock = std::chrono::steady_clock;

namespace {

at::TensorOptions on(const LoadOptions& o, at::ScalarType type) {
  return at::TensorOptions(type).device(o.device);
}

// Some autoencoders overflow in half precision.
at::ScalarType vae_type(const ModelRepo& model, at::ScalarType asked) {
  const bool overflows = model.family().obeys_force_upcast && model.vae().value("force_upcast", true);
  return asked == at::kHalf && overflows ? at::kFloat : asked;
}

// The negative branch has sizes of its own where both are given; otherwise it is told the same.
models::PictureSizes sizes_of(const request::Request& r, request::CfgBranch branch) {
  const bool has_own = r.negative_original_size && r.negative_target_size;
  if (branch == request::CfgBranch::kPositive || !has_own)
    return {r.original_size, r.crops_coords_top_left, r.target_size};
  return {r.negative_original_size, r.negative_crops_coords_top_left, r.negative_target_size};
}

// The prompts of one branch as the family sees them.
models::PromptBatch prompts_of(const ModelRepo& model, request::Requests batch, request::CfgBranch branch) {
  const auto& r = batch.front();
  models::PromptBatch out{.is_absent = branch == request::CfgBranch::kNegative && !request::has_negative(r),
                          .pipeline = model.index(),
                          .denoiser = model.denoiser(),
                          .max_sequence_length = *r.max_sequence_length,
                          .clip_skip = branch == request::CfgBranch::kPositive ? r.clip_skip.value_or(0) : 0,
                          .height = *r.height,
                          .width = *r.width,
                          .sizes = sizes_of(r, branch),
                          .guidance_scale = *r.guidance_scale};
  for (size_t encoder = 0; encoder < out.texts.size(); ++encoder) {
    for (const auto& one : batch) out.texts[encoder].push_back(request::prompt_of(one, branch, encoder));
  }
  return out;
}

const at::Tensor& finite(const at::Tensor& images) {
  const auto whole = at::isfinite(images).flatten(1).all(1).to(at::kCPU);
  for (int64_t i = 0; i < whole.size(0); ++i) {
    if (whole[i].item<bool>()) continue;
    throw RequestError(Kind::kItem, str("picture ", i + 1, " of ", whole.size(0),
                                        " holds numbers out of range; try torch_dtype bfloat16 or float32"));
  }
  return images;
}

}  // namespace

Pipeline::Pipeline(const ModelRepo& model, parallel::ParallelContext& parallel_context,
                   std::span<const plan::ModelChunk> route, const LoadOptions& options)
    : model_(model),
      parallel_context_(parallel_context),
      options_(options),
      adapters_(model),
      lap_(Clock::now()) {
  const c10::InferenceMode guard;
  const int64_t before = allocated_bytes(options.device);
  auto changes = adapters_.bind(options.adapters);
  load_denoiser(route, changes);
  if (parallel_context.picture_parts() > 1 || leads()) {
    images_.emplace(model, parallel_context,
                    ImageStage::DecodeOptions{options.device, vae_type(model, options.vae),
                                              options.vae_slicing, options.vae_tiling, options.residency});
  }
  if (leads())
    texts_.emplace(model, options.device, options.encoders, options.residency, options.graphs,
                   std::move(changes));
  synchronize(options.device);
  weight_bytes_ = allocated_bytes(options.device) - before;
  lap("load");
}

Pipeline::~Pipeline() = default;

// Builds this rank's blocks of one denoiser.
Pipeline::LoadedExpert Pipeline::load_expert(std::string_view name, std::span<const Range> blocks,
                                             weights::Changes changes) {
  LoadedExpert made;
  const auto& component = model_.component(name);
  made.name = component.name;
  made.weights = std::make_unique<AdaptedPart>(model_.weights(component), std::move(changes));
  const auto options = on(options_, options_.denoiser);
  const auto build = [&](nn::BlockMemory& memory, const at::TensorOptions& where) {
    const nn::Builder builder(made.weights->store(), parallel_context_.denoiser(), memory, where);
    auto built = model_.family().build(*component.config, builder.of_tier(options_.tier), blocks);
    made.linears = builder.linears();
    made.weights->hold(builder.manifest());
    return built;
  };
  auto* shards = parallel_context_.shards();
  if (shards || options_.residency == Residency::kStreamed) {
    nn::BlockSizes sizes;
    build(sizes, options.device(at::kMeta));
    if (shards) made.memory = std::make_unique<parallel::Sharded>(*shards, sizes.bytes(), options_.device);
    if (!shards) made.memory = std::make_unique<nn::Offloaded>(sizes.bytes(), options_.device);
  } else {
    made.memory = component_memory(options_.residency);
  }
  made.model = build(*made.memory, options);
  made.weights->store().check();
  made.memory->release();
  return made;
}

void Pipeline::load_denoiser(std::span<const plan::ModelChunk> route, ChangesOf& changes) {
  const auto& family = model_.family();
  check_tier(options_.tier, model_.facts(), options_.device);
  std::vector<Range> mine;
  for (const auto& chunk : plan::chunks_of(route, parallel_context_.mesh().index(plan::Axis::kPipeline))) {
    mine.push_back({chunk.begin, chunk.end - chunk.begin});
  }
  Denoiser denoiser{family, model_.denoiser(), {}};
  for (const auto name : family.experts)
    experts_.push_back(load_expert(name, mine, std::move(changes[std::string(name)])));
  for (const auto& e : experts_) denoiser.experts.push_back({e.model.get(), e.memory.get()});
  const bool records = options_.graphs == GraphMode::kOn && options_.device.is_cuda() &&
                       options_.residency != Residency::kParked;
  executor_ = std::make_unique<Executor>(
      denoiser, parallel_context_, route,
      ExecutorOptions{on(options_, options_.denoiser), records ? cuda_graphs() : nullptr,
                      options_.joins_branches, kept_shapes_bytes(options_.device)});
}

bool Pipeline::leads() const {
  return !parallel_context_.replica() || parallel_context_.replica()->rank() == 0;
}

double Pipeline::lap(const char* phase) {
  const auto now = Clock::now();
  const double s = std::chrono::duration<double>(now - lap_).count();
  timing_.seconds[phase] += s;
  lap_ = now;
  return s;
}

std::set<std::string> Pipeline::used() const {
  auto all = parallel_context_.used();
  if (executor_->joined_branches()) all.insert("guidance: both branches in one pass");
  if (executor_->graphs() > 0) all.insert("graph mode: CUDA graphs");
  for (const auto& expert : experts_) {
    if (options_.tier == nn::Tier::kExact) break;
    const auto& linears = expert.linears;
    all.insert(str("products: e4m3 rows in ", linears.e4m3, " of ", linears.e4m3 + linears.dense,
                   " linears of blocks"));
  }
  return all;
}

// What depends on sizes and steps only. Throws Error(kUsage) for what cannot be.
void Pipeline::prepare(const request::Request& r, Denoise& work) {
  const auto& family = model_.family();
  const auto vae = models::find_vae(model_.vae()).facts(model_.vae());
  if (r.guidance_is_cfg != (family.guidance_scale == models::GuidanceScale::kClassifierFree))
    throw Error(Kind::kUsage, str(r.name, ": its guidance was not settled for ", family.name));
  work.cfg = {request::cfg_scale(r), r.guidance_rescale.value_or(0)};
  work.grid = family.grid(model_.denoiser(), vae.spatial, *r.height, *r.width, 1);
  sampler_ = sampler_of(
      r, model_.scheduler(),
      {.linear_sigmas = family.sigmas == models::Sigmas::kLinearToInverse, .tokens = work.grid.tokens()},
      family.image_to_image.cut);
  work.sampler = sampler_.get();
}

void Pipeline::adapt(ChangesOf& changes) {
  for (auto& expert : experts_)
    timing_.reread_bytes += expert.weights->adapt(std::move(changes[expert.name]), *expert.memory).bytes;
  synchronize(options_.device);
}

// What a request needs besides its conditioning. Its noise is drawn beside the encoders: the CPU needs longer for it
// than they need on a GPU.
std::future<Pipeline::DrawnNoise> Pipeline::plan(request::Requests batch, Denoise& work, ChangesOf& changes) {
  using sampling::NoiseSource;
  request::check_batch(batch);
  const auto& first = batch.front();
  prepare(first, work);
  changes = adapters_.bind(request::adapter_refs(first.lora.value_or(std::vector<std::string>{})));
  std::vector<uint64_t> seeds;
  for (const auto& r : batch) seeds.push_back(*r.seed);
  return std::async(std::launch::async,
                    [seeds, size = work.grid.latent(1), has_image = first.image.has_value(),
                     has_mask = first.mask.has_value()] {
                      DrawnNoise drawn{NoiseSource(seeds, size), {}, {}};
                      if (has_image) drawn.picture = drawn.source.draw(NoiseSource::kPicture);
                      drawn.initial = drawn.source.draw(NoiseSource::kInitial);
                      if (has_mask) drawn.source.draw(NoiseSource::kMasked);  // moves the generators on
                      return drawn;
                    });
}

// The leader sees first whether the request can be done at all: its verdict is everybody's.
std::future<Pipeline::DrawnNoise> Pipeline::condition(request::Requests batch, Denoise& work,
                                                      const StepCallbacks& callbacks) {
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
  work.branches = from_leader(parallel_context_.replica(), options_.device, [&] {
    if (problem) std::rethrow_exception(problem);
    timing_.reread_bytes += texts_->adapt(changes);
    for (size_t i = 0; callbacks.on_note && !work.grid.note.empty() && i < batch.size(); ++i)
      callbacks.on_note(i, work.grid.note);
    const auto one = [&](request::CfgBranch branch, const char* prefix) {
      return texts_->condition(prompts_of(model_, batch, branch), probes, prefix, callbacks.on_note);
    };
    Conditionings branches{one(request::CfgBranch::kPositive, "prompt.")};
    if (work.cfg.scale > 1) branches.push_back(one(request::CfgBranch::kNegative, "negative."));
    return branches;
  });
  if (problem) std::rethrow_exception(problem);
  adapt(changes);
  for (size_t b = 0; probes && b < work.branches.size(); ++b) {
    const std::string prefix = b == 0 ? "prompt." : "negative.";
    for (const auto& t : work.branches[b].streams) probes->whole(prefix + "embeds", t.transpose(0, 1));
    for (const auto& [name, t] : work.branches[b].whole) probes->whole(prefix + name, t);
  }
  return noise;
}

// The leader reads the files and encodes them, unless all ranks encode their rows.
Pipeline::EncodedPictures Pipeline::encode(request::Requests batch, const models::Grid& grid) const {
  if (!batch.front().image) return {};
  const bool by_rows = parallel_context_.picture_parts() > 1;
  const int64_t spatial = models::find_vae(model_.vae()).facts(model_.vae()).spatial;
  const auto of_leader = from_leader(parallel_context_.replica(), options_.device, [&] {
    const auto inputs = read_inputs(batch, grid, spatial);
    nn::Conditioning sent;
    sent.whole["drawn"] = inputs.drawn;
    sent.whole["picture"] = by_rows ? inputs.pixels : images_->encode(inputs.pixels);
    return Conditionings{sent};
  });
  const auto& whole = of_leader.front().whole;
  const auto& picture = whole.at("picture");
  return {.moments = by_rows ? images_->encode(picture) : picture,
          .drawn = whole.at("drawn"),
          .strength = *batch.front().strength};
}

// In place of noise, as noisy as the first step wants it. A masked edit of full strength begins with noise alone, as in
// the reference. clean [B, C, h, w]; noise: packed.
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

std::vector<media::Artifact> Pipeline::generate(request::Requests batch, const StepCallbacks& callbacks,
                                                const GivenNoise& noise) {
  const c10::InferenceMode guard;
  lap_ = Clock::now();
  Denoise work;
  auto drawn = condition(batch, work, callbacks);
  const auto pictures = encode(batch, work.grid);
  synchronize(options_.device);
  lap("encode");

  if (callbacks.on_plan) callbacks.on_plan(static_cast<int>(work.sampler->steps().size()));
  begin_with(drawn.get(), noise, pictures, work, callbacks.probes);
  const auto tokens = denoise(work, callbacks);
  lap("denoise");

  if (!tokens.defined()) return {};
  const auto latents = model_.family().unpack(tokens, work.grid);
  if (callbacks.probes) callbacks.probes->whole("latents.final", latents);
  if (!images_) return {};
  const auto images = images_->decode(latents, callbacks.probes);
  synchronize(options_.device);
  parallel_context_.check_alive();
  lap("decode");
  return leads() ? to_artifacts(finite(images), model_.defaults().fps) : std::vector<media::Artifact>{};
}

at::Tensor Pipeline::denoise(const Denoise& work, const StepCallbacks& callbacks) {
  std::vector<std::unique_ptr<nn::InPlace>> here;
  for (const auto& e : experts_) here.push_back(std::make_unique<nn::InPlace>(*e.memory));
  auto tokens = executor_->denoise(work, callbacks);
  synchronize(options_.device);
  parallel_context_.check_alive();
  timing_.step_ms = executor_->step_ms();
  return tokens;
}

}  // namespace atelier::pipeline
