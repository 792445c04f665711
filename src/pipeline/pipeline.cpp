#include "pipeline/pipeline.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "nn/builder.h"
#include "nn/memory.h"
#include "parallel/shards.h"
#include "pipeline/device.h"

namespace atelier::pipeline {

using Clock = std::chrono::steady_clock;

namespace {

at::TensorOptions on(const LoadOptions& o, at::ScalarType type) {
  return at::TensorOptions(type).device(o.device);
}

// Ids for models without a vocabulary: equal texts give equal ids.
std::vector<int64_t> hashed_ids(const std::string& text, int64_t length, int64_t vocabulary) {
  std::vector<int64_t> ids(static_cast<size_t>(length));
  uint64_t h = 1469598103934665603ull;
  for (size_t i = 0; i < ids.size(); ++i) {
    h = (h ^ (i < text.size() ? static_cast<unsigned char>(text[i]) : 0u)) * 1099511628211ull;
    ids[i] = static_cast<int64_t>((h >> 20) % static_cast<uint64_t>(vocabulary));
  }
  return ids;
}

class ShardFetcher : public BlockFetcher {
 public:
  explicit ShardFetcher(parallel::ShardedMemory& memory) : memory_(memory) {}
  void start(std::span<const int> blocks) override { memory_.start(blocks); }
  void before(int block) override { memory_.before(block); }

 private:
  parallel::ShardedMemory& memory_;
};

// Tensors of rank 0 on every rank of the replica; other ranks may pass anything.
at::Tensor share(comm::Comm* replica, at::Tensor value, const at::TensorOptions& options) {
  if (!replica) return value;
  const bool root = replica->rank() == 0;
  auto header = at::empty({4}, options.dtype(at::kLong));
  if (root) {
    std::vector<int64_t> sizes = value.sizes().vec();
    sizes.insert(sizes.begin(), value.dim());
    sizes.resize(4, 1);
    header.copy_(at::tensor(sizes, at::TensorOptions(at::kLong)));
  }
  replica->broadcast(header, 0);
  const auto numbers = header.to(at::kCPU).contiguous();
  replica->check_alive();  // an aborted broadcast leaves anything there
  const int64_t* h = numbers.const_data_ptr<int64_t>();
  if (!root) value = at::empty(at::IntArrayRef(h + 1, static_cast<size_t>(h[0])), options);
  value = value.contiguous();
  replica->broadcast(value, 0);
  return value;
}

}  // namespace

Pipeline::Pipeline(const ModelRepo& folder, parallel::ParallelContext& parallel_context,
                   std::span<const plan::ModelChunk> route, const LoadOptions& options)
    : folder_(folder), parallel_context_(parallel_context), options_(options), lap_(Clock::now()) {
  const c10::InferenceMode guard;
  const int64_t before = allocated_bytes(options.device);
  load_denoiser(route);
  if (parallel_context.picture_parts() > 1 || leads()) {
    const auto store = folder.vae_weights();
    nn::PlainMemory memory;
    const nn::Builder v(*store, parallel_context.picture(), memory, on(options, options.vae));
    vae_ = models::find_vae(folder.vae()).build(folder.vae(), v);
    store->check();
  }
  if (leads()) load_encoders();
  synchronize(options.device);
  weight_bytes_ = allocated_bytes(options.device) - before;
  lap("load");
}

Pipeline::~Pipeline() = default;

void Pipeline::load_denoiser(std::span<const plan::ModelChunk> route) {
  const auto& family = folder_.family();
  std::vector<Range> mine;
  for (const auto& chunk : plan::chunks_of(route, parallel_context_.mesh().index(plan::Axis::kPipeline))) {
    mine.push_back({chunk.begin, chunk.end - chunk.begin});
  }
  const auto options = on(options_, options_.denoiser);
  denoiser_store_ = folder_.denoiser_weights();
  const auto build = [&](nn::Memory& memory, const at::TensorOptions& where) {
    return family.build(folder_.denoiser(),
                        nn::Builder(*denoiser_store_, parallel_context_.denoiser(), memory, where), mine);
  };
  if (auto* group = parallel_context_.shards()) {
    parallel::BlockSizes sizes;
    build(sizes, options.device(at::kMeta));
    auto memory = std::make_unique<parallel::ShardedMemory>(*group, sizes.bytes(), options_.device);
    denoiser_ = build(*memory, options);
    fetcher_ = std::make_unique<ShardFetcher>(*memory);
    memory_ = std::move(memory);
  } else {
    memory_ = std::make_unique<nn::PlainMemory>();
    denoiser_ = build(*memory_, options);
  }
  denoiser_store_->check();
  executor_ = std::make_unique<Executor>(family, *denoiser_, parallel_context_, route, options,
                                         options_.graphs, fetcher_.get());
}

bool Pipeline::leads() const {
  return !parallel_context_.replica() || parallel_context_.replica()->rank() == 0;
}

void Pipeline::load_encoders() {
  const nn::Seams whole{.exchange = &alone_, .attention = &sdpa_};
  nn::PlainMemory memory;
  const auto& specs = folder_.family().encoders;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto store = folder_.encoder_weights(i);
    const nn::Builder b(*store, whole, memory, on(options_, options_.encoders));
    encoders_.push_back(models::find_encoder(folder_.encoder(i)).build(folder_.encoder(i), b));
    store->check();
    const auto path = folder_.root() / specs[i].tokenizer;
    const bool none = folder_.is_dummy() || folder_.has_no_vocabulary();
    tokenizers_.push_back(none ? nullptr : text::open_tokenizer(path));
  }
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
  if (executor_->graphs() > 0) all.insert("graph mode: CUDA graphs");
  return all;
}

Denoise::Branch Pipeline::encode(const std::vector<std::string>& prompts, int64_t max_length,
                                 const std::string& tap, ActivationRecorder* probes) {
  Denoise::Branch branch;
  const auto options = on(options_, options_.encoders);
  const auto& specs = folder_.family().encoders;
  for (size_t i = 0; leads() && i < specs.size(); ++i) {
    const int64_t length = specs[i].max_length ? specs[i].max_length : max_length;
    std::vector<int64_t> ids;
    for (const auto& p : prompts) {
      const auto one = tokenizers_[i] ? tokenizers_[i]->encode(p, length).ids
                                      : hashed_ids(p, length, folder_.encoder_vocabulary(i));
      ids.insert(ids.end(), one.begin(), one.end());
    }
    const auto t = at::tensor(ids, at::TensorOptions(at::kLong)).view({-1, length});
    const auto e = encoders_[i]->encode(t.to(options_.device), {});
    if (probes) {
      const std::string name(specs[i].folder);
      probes->whole(tap + "input_ids." + name, t);
      probes->whole(tap + "last_hidden_state." + name, e.states);
      if (e.pooled.defined()) probes->whole(tap + "pooler_output." + name, e.pooled);
    }
    if (specs[i].use == models::EncoderSpec::Use::kPooled) branch.pooled = e.pooled;
    if (specs[i].use == models::EncoderSpec::Use::kStates)
      branch.text = e.states.transpose(0, 1).contiguous();
  }
  branch.text = share(parallel_context_.replica(), branch.text, options);
  branch.pooled = share(parallel_context_.replica(), branch.pooled, options);
  if (probes) {
    probes->whole(tap + "embeds", branch.text.transpose(0, 1));
    probes->whole(tap + "pooled", branch.pooled);
  }
  return branch;
}

at::Tensor Pipeline::initial_noise(const Request& r, const models::Grid& g) const {
  if (r.noise.defined()) return r.noise;
  std::vector<at::Tensor> each;
  for (const uint64_t seed : r.seeds) {
    each.push_back(sampling::noise({1, g.latent_channels, g.latent_rows, g.latent_cols}, seed));
  }
  return at::cat(each);
}

namespace {

const at::Tensor& finite(const at::Tensor& images) {
  const auto whole = at::isfinite(images).flatten(1).all(1).to(at::kCPU);
  for (int64_t i = 0; i < whole.size(0); ++i) {
    if (whole[i].item<bool>()) continue;
    throw Error(Kind::kItem, str("picture ", i + 1, " of ", whole.size(0),
                                 " holds numbers out of range; try --torch_dtype bfloat16 or float32"));
  }
  return images;
}

}  // namespace

std::vector<media::Image> Pipeline::generate(const Request& r, const StepCallbacks& callbacks) {
  const c10::InferenceMode guard;
  const auto& family = folder_.family();
  const auto vae_facts = models::find_vae(folder_.vae()).facts(folder_.vae());
  lap_ = Clock::now();

  Denoise work;
  work.grid = family.grid(folder_.denoiser(), vae_facts.spatial, r.height, r.width);
  work.guidance = r.guidance;
  work.cfg = r.true_cfg;
  work.branches.push_back(encode(r.prompts, r.max_sequence_length, "prompt.", callbacks.probes));
  if (!r.negatives.empty()) {
    work.branches.push_back(encode(r.negatives, r.max_sequence_length, "negative.", callbacks.probes));
  }
  synchronize(options_.device);
  lap("encode");

  const auto sampler = sampling::make_sampler(
      folder_.scheduler(), {.steps = r.steps,
                            .linear_sigmas = family.sigmas == models::Sigmas::kLinearToInverse,
                            .tokens = work.grid.rows * work.grid.cols});
  work.sampler = sampler.get();
  const auto noise = initial_noise(r, work.grid);
  const auto packed = family.pack(noise).contiguous();
  const auto type = options_.denoiser == at::kDouble ? at::kDouble : at::kFloat;
  work.latents = packed.to(type).to(options_.device) * sampler->init_noise_sigma();
  if (callbacks.probes) {
    const auto numbers = [](std::span<const float> v) {
      return at::tensor(at::ArrayRef<float>(v.data(), v.size()));
    };
    callbacks.probes->whole("noise", noise);
    callbacks.probes->whole("noise.packed", packed.transpose(0, 1));
    callbacks.probes->whole("timesteps", numbers(sampler->timesteps()));
    callbacks.probes->whole("sigmas", numbers(sampler->sigmas()));
  }

  const auto tokens = denoise(work, callbacks);
  lap("denoise");

  if (!tokens.defined()) return {};
  const auto latents = family.unpack(tokens, work.grid);
  if (callbacks.probes) callbacks.probes->whole("latents.final", latents);
  if (!vae_) return {};
  const auto images = decode(latents / vae_facts.scale + vae_facts.shift, callbacks);
  synchronize(options_.device);
  parallel_context_.check_alive();
  lap("decode");
  return leads() ? to_images(finite(images)) : std::vector<media::Image>{};
}

at::Tensor Pipeline::denoise(const Denoise& work, const StepCallbacks& callbacks) {
  timing_.step_ms.clear();
  StepCallbacks timed = callbacks;
  const auto begin = Clock::now();
  auto last = begin;
  const bool flows = parallel_context_.degrees().pipeline > 1;  // waiting at each step would empty the pipe
  timed.on_step = [&](int step) {
    if (!flows) synchronize(options_.device);
    const auto now = Clock::now();
    timing_.step_ms.push_back(std::chrono::duration<double, std::milli>(now - last).count());
    last = now;
    if (callbacks.on_step) callbacks.on_step(step);
  };
  auto tokens = executor_->denoise(work, timed);
  synchronize(options_.device);
  parallel_context_.check_alive();
  if (flows) {
    const std::chrono::duration<double, std::milli> all = Clock::now() - begin;
    auto& each = timing_.step_ms;
    std::fill(each.begin(), each.end(), all.count() / static_cast<double>(std::max<size_t>(each.size(), 1)));
  }
  return tokens;
}

at::Tensor Pipeline::decode(const at::Tensor& z_wide, const StepCallbacks& callbacks) {
  const auto z = z_wide.to(options_.vae);
  const int parts = parallel_context_.picture_parts(), rank = parallel_context_.picture_rank();
  const auto whole = models::image_call(z.size(2), z.size(3), parts, rank);
  const Range rows = Partition{z.size(2), parts}[rank];
  const auto run = [&](const at::Tensor& part) {
    if (options_.vae_tiling && parts == 1) return models::decode_tiled(*vae_, part);
    return vae_->decode(whole, parts == 1 ? part : part.narrow(2, rows.begin, rows.size).contiguous());
  };
  std::vector<at::Tensor> pictures;
  for (int64_t i = 0; options_.vae_slicing && i < z.size(0); ++i) pictures.push_back(run(z.narrow(0, i, 1)));
  auto out = pictures.empty() ? run(z) : at::cat(pictures);
  if (parts > 1) out = parallel_context_.gather_rows(out, z.size(2));
  if (callbacks.probes) {
    callbacks.probes->whole("vae.in", z);
    callbacks.probes->whole("vae.out", out);
  }
  const auto image = (out.to(at::kFloat) * 0.5 + 0.5).clamp(0, 1);
  if (callbacks.probes) callbacks.probes->whole("image", image);
  return image;
}

std::vector<media::Image> to_images(const at::Tensor& images) {
  const auto bytes = (images * 255).round().to(at::kByte).permute({0, 2, 3, 1}).contiguous().to(at::kCPU);
  std::vector<media::Image> out;
  for (int64_t i = 0; i < bytes.size(0); ++i) {
    const auto one = bytes[i];
    media::Image p{static_cast<int>(one.size(1)), static_cast<int>(one.size(0)), {}};
    p.rgb.resize(static_cast<size_t>(one.numel()));
    std::memcpy(p.rgb.data(), one.const_data_ptr(), p.rgb.size());
    out.push_back(std::move(p));
  }
  return out;
}

}  // namespace atelier::pipeline
