#include "app/run/plan_query.h"

#include <algorithm>

#include "app/doctor/gpus.h"
#include "base/error.h"
#include "models/text_encoder.h"
#include "models/vae.h"
#include "pipeline/device.h"
#include "pipeline/model_work.h"

namespace atelier::app {
namespace {

using Part = pipeline::Component::ComponentKind;

constexpr double kEightBitSpeed =
    1.67;  // of a step's products in e4m3 with their rounding, measured on one H200
// Rate of FlashAttention-3 with e4m3, of that with bfloat16: cited (arXiv 2407.08608), not measured.
constexpr double kEightBitAttention = 1.5;
constexpr int64_t kLibraries = int64_t{768} << 20;

bool is_cut(const pipeline::Component& encoder) {
  return models::find_encoder(*encoder.config).has_blocks;
}

plan::Offload offload_of(const std::string& name) {
  if (name == "none") return plan::Offload::kNone;
  if (name == "encoders") return plan::Offload::kEncoders;
  return name == "model" ? plan::Offload::kWhole : plan::Offload::kBlocks;
}

}  // namespace

std::optional<plan::Hardware> hardware_here(const DeviceChoice& device) {
  if (!device.device.is_cuda()) return std::nullopt;
  const c10::Device one(c10::kCUDA, std::max<c10::DeviceIndex>(0, device.device.index()));
  const plan::Hardware* known = plan::find_hardware(pipeline::device_name(one));
  if (!known) return std::nullopt;
  plan::Hardware here = *known;
  here.memory = pipeline::memory_bytes(one);
  std::string reason;
  if (const auto nvml = open_nvml(reason)) {
    const auto links = links_between(*nvml, std::min(nvml->count(), pipeline::cuda_devices()));
    const bool can_have = links != "nvlink" || here.links.name == "nvlink";
    if (!links.empty() && can_have) here.links = plan::links_named(links, here);
  }
  return here;
}

const plan::Hardware& hardware_named(const std::string& name) {
  if (const auto* known = plan::find_hardware(name)) return *known;
  std::string names;
  for (const auto& h : plan::hardware_presets()) names += (names.empty() ? "" : ", ") + std::string(h.name);
  throw Error(Kind::kUsage, str("--hardware ", name, " is unknown; there are ", names));
}

void check_hardware(const plan::Hardware& hardware, const pipeline::EngineConfig& engine) {
  const auto refuse = [&](const std::string& what, const char* needed, const char* instead) {
    throw Error(Kind::kUsage,
                str(what, " needs compute capability ", needed, "; the ", hardware.name, " has ",
                    hardware.capability / 10, ".", hardware.capability % 10, ": take ", instead));
  };
  if (engine.tier != "exact" && !hardware.has_e4m3())
    refuse(str("tier ", engine.tier, " multiplies in FP8, which"), "8.9", "--tier exact");
  if (engine.attention_dtype != "auto" && hardware.capability / 10 != 9)
    refuse("attention_dtype " + engine.attention_dtype, "9", "--attention_dtype auto");
}

int64_t kept_by_libraries() {
  return kLibraries;
}

plan::MemoryQuery memory_query(const pipeline::ModelRepo& folder, const ModelFacts& facts,
                               const pipeline::EngineConfig& engine, bool is_device, int64_t height,
                               int64_t width) {
  plan::MemoryQuery q;
  q.denoisers = 0;
  for (const auto& [name, count] : facts.parameters) {
    const Part kind = folder.component(name).kind;
    if (kind == Part::kEncoder) q.encoders += count;
    if (kind == Part::kEncoder && engine.shard_t5_encoder && is_cut(folder.component(name)))
      q.shared_encoders += count;
    if (kind == Part::kVae) q.vae += count;
    if (kind == Part::kDenoiser) ++q.denoisers;
  }
  const auto size = [](const std::string& dtype) {
    return static_cast<double>(pipeline::bytes_of_type(dtype));
  };
  const auto& types = engine.precision;
  q.sizes = {.blocks = size(types.denoiser),
             .denoiser = size(types.denoiser),
             .encoders = size(types.encoders),
             .vae = size(types.vae)};
  if (engine.tier != "exact") q.sizes.blocks = 1;
  q.pixels = height * width;
  const auto vae = models::find_vae(folder.vae()).facts(folder.vae());
  q.latent_rows = height / vae.spatial;
  q.frames_at_once = vae.temporal;
  q.vae_width = vae.full_width;
  q.has_tiles = engine.vae_tiling;
  q.has_slices = engine.vae_slicing;
  q.offload = is_device ? offload_of(engine.offload) : plan::Offload::kNone;
  q.is_device = is_device;
  return q;
}

plan::PlanQuery plan_query(const pipeline::ModelRepo& folder, const ModelFacts& facts, const ModelWork& work,
                           const RequestSet& pictures, const pipeline::EngineConfig& engine,
                           const plan::Hardware& hardware) {
  plan::PlanQuery q{.step = {{facts, pictures.extent.work}, work}, .hardware = hardware};
  int64_t height = pictures.extent.height, width = pictures.extent.width, frames = 1;
  for (const auto& r : pictures.requests) {
    const int64_t count = r.num_frames.value_or(1);
    if (int64_t{*r.height} * *r.width * count > height * width * frames)
      height = *r.height, width = *r.width, frames = count;
  }
  q.memory = memory_query(folder, facts, engine, true, height, width);
  q.memory.frames = frames;
  q.step.grid_tokens = pipeline::grid_tokens(folder, height, width, frames);
  const bool may_be_flash3 = engine.attention == "auto" || engine.attention == "flash3";
  if (!may_be_flash3 || engine.precision.denoiser != "bfloat16") q.hardware.flash3 = 1;
  if (engine.tier != "exact") q.hardware.products *= kEightBitSpeed;
  q.step.has_e4m3_attention = engine.attention_dtype != "auto";
  if (q.step.has_e4m3_attention && q.hardware.flash3 > 1) q.hardware.flash3 *= kEightBitAttention;
  q.room = hardware.memory - kLibraries;
  return q;
}

}  // namespace atelier::app
