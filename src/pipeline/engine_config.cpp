#include "pipeline/engine_config.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::pipeline {
namespace {

// Large enough for products at full speed.
constexpr int64_t kTokensAtOnce = 4096;

template <class T>
T named(const char* what, const std::string& name, std::initializer_list<std::pair<const char*, T>> all) {
  std::string known;
  for (const auto& [spelling, value] : all) {
    if (name == spelling) return value;
    known += str(known.empty() ? "" : ", ", spelling);
  }
  throw Error(Kind::kUsage, str("unknown ", what, " ", name, "; known are ", known));
}

at::ScalarType dtype_named(const std::string& name) {
  return named<at::ScalarType>("number type", name,
                               {{"float32", at::kFloat},
                                {"bfloat16", at::kBFloat16},
                                {"float16", at::kHalf},
                                {"float64", at::kDouble}});
}

nn::SdpaBackend backend_named(const std::string& name) {
  using enum nn::SdpaBackend;
  return named<nn::SdpaBackend>("attention kernel", name,
                                {{"auto", kAuto},
                                 {"cudnn", kCudnn},
                                 {"flash", kFlash},
                                 {"flash3", kFlash3},
                                 {"efficient", kEfficient},
                                 {"math", kMath}});
}

Residency residency_named(const std::string& name) {
  using enum Residency;
  return named<Residency>("kind of offload", name,
                          {{"none", kResident},
                           {"encoders", kDenoiserResident},
                           {"model", kParked},
                           {"sequential", kStreamed},
                           {"group", kStreamed}});
}

}  // namespace

nn::Tier tier_named(const std::string& name) {
  using enum nn::Tier;
  return named<nn::Tier>("tier", name, {{"exact", kExact}, {"fast", kFast}, {"fast-strict", kFastStrict}});
}

nn::AttentionDtype attention_dtype_named(const std::string& name) {
  using enum nn::AttentionDtype;
  return named<nn::AttentionDtype>("attention dtype", name, {{"auto", kAuto}, {"fp8_e4m3", kFp8E4m3}});
}

void EngineConfig::fields(const Visit& visit) {
  visit({.name = "folder"}, &model.folder);
  visit({.name = "single_file"}, &model.single_file);
  visit({.name = "second_file"}, &model.second_file);
  visit({.name = "preset"}, &model.preset);
  visit({.name = "dummy_seed"}, &model.dummy_seed);
  visit({.name = "parts"}, &model.parts);
  visit({.name = "device"}, &device);
  visit({.name = "denoiser_dtype"}, &precision.denoiser);
  visit({.name = "encoder_dtype"}, &precision.encoders);
  visit({.name = "vae_dtype"}, &precision.vae);
  visit({.name = "attention"}, &attention);
  visit({.name = "offload"}, &offload);
  visit({.name = "tier"}, &tier);
  visit({.name = "attention_dtype"}, &attention_dtype);
  visit({.name = "deterministic"}, &deterministic);
  visit({.name = "shard_t5_encoder"}, &shard_t5_encoder);
  visit({.name = "vae_slicing"}, &vae_slicing);
  visit({.name = "vae_tiling"}, &vae_tiling);
  visit({.name = "tf32"}, &tf32);
  visit({.name = "graphs"}, &graphs);
  visit({.name = "debug"}, &debug);
  visit({.name = "profile"}, &profile);
  visit({.name = "profiled_from"}, &profiled_from);
  visit({.name = "profiled"}, &profiled);
  visit({.name = "chunked_forward"}, &chunked_forward);
  visit({.name = "memory_fraction"}, &memory_fraction);
  visit({.name = "gemm_cache"}, &gemm_cache);
  visit({.name = "settles_after"}, &settles_after);
  visit({.name = "stage_blocks"}, &layout.stage_blocks);
  visit({.name = "adapters"}, &adapters);
}

Json to_json(const EngineConfig& config) {
  Json out = fields_to_json(fields_of(config));
  out["layout"] = plan::to_string(config.layout);
  return out;
}

EngineConfig engine_config_from_json(const Json& json) {
  auto out = fields_from_json<EngineConfig>(json);
  auto stage_blocks = std::move(out.layout.stage_blocks);  // which a strategy's text does not say
  out.layout = plan::parse_strategy(json.value("layout", ""));
  out.layout.stage_blocks = std::move(stage_blocks);
  return out;
}

namespace {

ModelRepo open_whole(const ModelSpec& spec) {
  if (!spec.preset.empty()) return ModelRepo::dummy(spec.preset, spec.dummy_seed);
  if (!spec.second_file.empty())
    return ModelRepo::open_single_files(std::array{spec.single_file, spec.second_file}, spec.folder);
  if (!spec.single_file.empty())
    return ModelRepo::open_single_files(std::array{spec.single_file}, spec.folder);
  return ModelRepo::open(spec.folder);
}

}  // namespace

ModelRepo open_model(const ModelSpec& spec) {
  using enum ModelRepo::Parts;
  const auto parts = named<ModelRepo::Parts>("part of a model", spec.parts,
                                             {{"all", kAll}, {"denoiser", kDenoiser}, {"vae", kVae}});
  if (parts == kDenoiser && spec.folder.empty() && spec.preset.empty())
    return ModelRepo::open_denoiser(spec.single_file);
  auto model = open_whole(spec);
  model.keep(parts);
  return model;
}

LoadOptions load_options(const EngineConfig& c, c10::Device device) {
  return {.device = device,
          .denoiser = dtype_named(c.precision.denoiser),
          .encoders = dtype_named(c.precision.encoders),
          .vae = dtype_named(c.precision.vae),
          .tier = tier_named(c.tier),
          .vae_slicing = c.vae_slicing,
          .vae_tiling = c.vae_tiling,
          .shard_t5_encoder = c.shard_t5_encoder,
          .graphs = c.graphs && device.is_cuda() ? GraphMode::kOn : GraphMode::kOff,
          .attention = c.deterministic ? nn::SdpaBackend::kOrdered : backend_named(c.attention),
          .attention_dtype = attention_dtype_named(c.attention_dtype),
          .joins_branches = device.is_cuda(),
          .tokens_at_once = c.chunked_forward ? kTokensAtOnce : 0,
          .residency = residency_named(c.offload),
          .adapters = request::adapter_refs(c.adapters)};
}

}  // namespace atelier::pipeline
