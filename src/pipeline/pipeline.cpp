#include "pipeline/pipeline.h"

#include <ATen/ops/isfinite.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/vae.h"
#include "nn/streamed_memory.h"
#include "parallel/shards.h"
#include "pipeline/device.h"
#include "pipeline/tier.h"
#include "plan/picture_rows.h"

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

// Sizes of what is decoded in the end: without what is only drawn along.
std::vector<int64_t> shown_latents(const models::Grid& grid, int64_t batch) {
  auto sizes = grid.latent(batch);
  if (grid.left_out > 0) sizes[2] -= grid.left_out;
  return sizes;
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
  const auto ordered = arithmetic();
  const int64_t before = allocated_bytes(options.device);
  auto changes = adapters_.bind(options.adapters);
  if (!model.experts().empty()) load_denoiser(route, changes);
  if (model.has("vae") &&
      (leads() || plan::may_code_by_rows(parallel_context.degrees(), options.vae_tiling))) {
    images_.emplace(model, parallel_context,
                    ImageStage::DecodeOptions{options.device, vae_type(model, options.vae),
                                              options.vae_slicing, options.vae_tiling, options.residency});
  }
  if ((leads() || encoder_sharers()) && !model.encoders().empty())
    texts_.emplace(model, options.device, options.encoders, options.residency, options.graphs,
                   std::move(changes), encoder_sharers());
  if (leads() && model.has_image_encoder())
    vision_.emplace(model, options.device, options.encoders, options.residency);
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
  if (options_.tokens_at_once > 0)
    made.chunks = std::make_shared<nn::TokenChunks>(nn::TokenChunks{.tokens = options_.tokens_at_once});
  made.weights = std::make_unique<AdaptedPart>(model_.weights(component), std::move(changes));
  const auto options = on(options_, options_.denoiser);
  const auto build = [&](nn::BlockMemory& memory, const at::TensorOptions& where) {
    const nn::Builder builder(made.weights->store(), parallel_context_.denoiser(), memory, where);
    auto built = model_.family().build(
        *component.config,
        builder.of_tier(options_.tier).of_attention(options_.attention_dtype).by_chunks(made.chunks), blocks);
    made.linears = builder.linears();
    made.attentions = builder.attentions();
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
    made.memory = component_memory(of_denoiser(options_.residency));
  }
  made.model = build(*made.memory, options);
  made.weights->store().check();
  if (options_.attention_dtype != nn::AttentionDtype::kAuto)
    check_attentions(made.attentions, model_.facts().name);
  made.memory->release();
  return made;
}

void Pipeline::load_denoiser(std::span<const plan::ModelChunk> route, ChangesOf& changes) {
  const auto& family = model_.family();
  check_tier(options_.tier, model_.facts(), options_.device);
  check_attention_dtype(options_.attention_dtype, options_.attention, options_.denoiser, options_.device);
  std::vector<Range> mine;
  for (const auto& chunk : plan::chunks_of(route, parallel_context_.mesh().index(plan::Axis::kPipeline))) {
    mine.push_back({chunk.begin, chunk.end - chunk.begin});
  }
  Denoiser denoiser{family, model_.denoiser(), {}};
  for (const auto name : model_.experts())
    experts_.push_back(load_expert(name, mine, std::move(changes[std::string(name)])));
  for (const auto& e : experts_) denoiser.experts.push_back({e.model.get(), e.memory.get(), e.name});
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

comm::Comm* Pipeline::encoder_sharers() const {
  return options_.shard_t5_encoder ? parallel_context_.replica() : nullptr;
}

double Pipeline::lap(const char* phase) {
  const auto now = Clock::now();
  const double s = std::chrono::duration<double>(now - lap_).count();
  timing_.seconds[phase] += s;
  lap_ = now;
  return s;
}

std::optional<nn::OrderedArithmetic> Pipeline::arithmetic() {
  if (options_.attention != nn::SdpaBackend::kOrdered) return std::nullopt;
  return std::optional<nn::OrderedArithmetic>(std::in_place, &unordered_);
}

std::set<std::string> Pipeline::used() const {
  auto all = parallel_context_.used();
  for (const auto& name : unordered_) all.insert("deterministic: nobody has said that this is: " + name);
  if (executor_ && executor_->joined_branches()) all.insert("guidance: both branches in one pass");
  for (const auto& name : texts_ ? texts_->shared() : std::vector<std::string>())
    all.insert(str(name, ": weights cut over ", parallel_context_.replica()->size(), " ranks"));
  if (executor_ && executor_->graphs() > 0) all.insert("graph mode: CUDA graphs");
  for (const auto& expert : experts_) {
    if (expert.chunks && expert.chunks->whole_bytes > 0)
      all.insert(str("chunked forward: hidden states of an MLP take ", expert.chunks->held_bytes,
                     " bytes instead of ", expert.chunks->whole_bytes));
    else if (expert.chunks)
      all.insert(str("chunked forward: no effect at this size: no MLP has more than the ",
                     expert.chunks->tokens, " tokens that are computed at once"));
    const auto &linears = expert.linears, &attentions = expert.attentions;
    if (options_.tier != nn::Tier::kExact)
      all.insert(str("products: e4m3 rows in ", linears.e4m3, " of ", linears.e4m3 + linears.dense,
                     " linears of blocks"));
    if (options_.attention_dtype != nn::AttentionDtype::kAuto)
      all.insert(str("attention: e4m3 in ", attentions.e4m3, " of ", attentions.e4m3 + attentions.dense,
                     " attentions of blocks"));
  }
  return all;
}

void Pipeline::adapt(const ChangesOf& changes) {
  for (auto& expert : experts_)
    timing_.reread_bytes += expert.weights->adapt(changes_of(changes, expert.name), *expert.memory).bytes;
  synchronize(options_.device);
}

std::vector<media::Artifact> Pipeline::generate(request::Requests batch, const StepCallbacks& callbacks,
                                                const GivenNoise& noise) {
  const c10::InferenceMode inference;
  const auto ordered = arithmetic();
  lap_ = Clock::now();
  Denoise work;
  auto drawn = condition(batch, work, callbacks);
  const auto pictures = encode(batch, work.grid);
  synchronize(options_.device);
  lap("encode");

  const auto by = coders(shown_latents(work.grid, std::ssize(batch)));
  work.is_for_all = by == CodedBy::kAllRanks;
  if (callbacks.on_plan) callbacks.on_plan(static_cast<int>(work.sampler->steps().size()));
  begin_with(drawn.get(), noise, pictures, work, callbacks.probes);
  const auto tokens = denoise(work, callbacks);
  lap("denoise");

  if (!tokens.defined()) return {};
  RECORD_USER_SCOPE("decode");
  const auto unpacked = [&](const at::Tensor& of) { return model_.family().unpack(of, work.grid); };
  if (callbacks.probes) callbacks.probes->whole("latents.final", unpacked(tokens));
  if (!images_ || (by == CodedBy::kThisRank && !leads())) return {};
  const auto latents = unpacked(work.given.with_known(tokens));
  const auto shown = work.grid.left_out > 0 ? latents.slice(2, work.grid.left_out) : latents;
  const auto images = images_->decode(shown, by, callbacks.probes);
  synchronize(options_.device);
  parallel_context_.check_alive();
  lap("decode");
  if (!leads()) return {};
  auto artifacts = to_artifacts(finite(images), model_.defaults().fps);
  for (size_t i = 0; i < artifacts.size(); ++i) {
    auto* video = std::get_if<media::Video>(&artifacts[i]);
    if (video && batch[i].fps) video->fps = *batch[i].fps;
  }
  return artifacts;
}

CodedBy Pipeline::coders(at::IntArrayRef latents) const {
  if (!model_.has("vae")) return CodedBy::kThisRank;
  const auto vae = models::find_vae(model_.vae()).facts(model_.vae());
  const int64_t frames = latents.size() > 4 ? std::min(vae.frames(latents[2]), vae.temporal) : 1;
  const int64_t at_once = (options_.vae_slicing ? 1 : latents[0]) * frames;
  const int64_t rows = latents[latents.size() - 2], cols = latents.back();
  const bool is_shared = plan::codes_by_rows(parallel_context_.degrees(),
                                             {.latent_rows = rows,
                                              .pixels = at_once * rows * cols * vae.spatial * vae.spatial,
                                              .is_device = options_.device.is_cuda(),
                                              .has_tiles = options_.vae_tiling});
  return is_shared ? CodedBy::kAllRanks : CodedBy::kThisRank;
}

// latents [B, C, (f,) h, w]
std::vector<media::Artifact> Pipeline::look_at(const at::Tensor& latents, bool is_small) {
  const double fps = model_.defaults().fps;
  if (!is_small) return to_artifacts(images_->glimpse(latents, coders(latents.sizes())), fps);
  if (!preview_) preview_.emplace(*images_, models::find_vae(model_.vae()).facts(model_.vae()));
  return preview_->draw(latents, fps);
}

at::Tensor Pipeline::denoise(const Denoise& work, const StepCallbacks& given) {
  RECORD_USER_SCOPE("denoise");
  std::vector<std::unique_ptr<nn::InPlace>> here;
  for (const auto& e : experts_) here.push_back(std::make_unique<nn::InPlace>(*e.memory));
  StepCallbacks callbacks = given;
  if (given.on_preview && leads() && images_) {
    callbacks.on_latents = [&](int step, const at::Tensor& latents) {
      given.on_preview(step, look_at(model_.family().unpack(latents, work.grid), work.has_small_previews));
    };
  }
  auto tokens = executor_->denoise(work, callbacks);
  synchronize(options_.device);
  parallel_context_.check_alive();
  timing_.step_ms = executor_->step_ms();
  timing_.cache = executor_->cache_counts();
  return tokens;
}

}  // namespace atelier::pipeline
