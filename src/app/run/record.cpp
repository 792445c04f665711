#include "app/run/record.h"

#include <nlohmann/json.hpp>

#include "app/run/identity.h"
#include "app/run/requests.h"
#include "base/error.h"
#include "base/version.h"
#include "plan/parallel_config.h"

namespace atelier::app {

Json record_of(const Resolved& resolved, const FoundModel& model, const pipeline::EngineConfig& engine) {
  const auto& output = resolved.settings.output;
  Json out = hashes_of(model.spec, model.folder.experts(),
                       resolved.settings.model.hash_model ? Depth::kFull : Depth::kFast);
  out.update({{"model", model.name},
              {"version", kVersion},
              {"scheduler", model.folder.scheduler().value("_class_name", std::string())},
              {"dtype", engine.precision.denoiser}});
  if (engine.precision.encoders != engine.precision.denoiser)
    out["encoder_dtype"] = engine.precision.encoders;
  if (engine.precision.vae != engine.precision.denoiser) out["vae_dtype"] = engine.precision.vae;
  if (!model.revision.empty()) out["revision"] = model.revision;
  if (model.folder.is_dummy()) out["dummy_seed"] = model.spec.dummy_seed;
  if (engine.tier != "exact") out["tier"] = engine.tier;
  if (engine.attention_dtype != "auto") out["attention_dtype"] = engine.attention_dtype;
  if (engine.deterministic) out["deterministic"] = true;
  if (engine.vae_tiling) out["vae_tiling"] = true;
  const auto format = output_format_of(resolved, model.folder);
  if (format != "png" && format != "gif" && format != "frames") out["quality"] = output.quality;
  // Stale keys change the picture; every other layout is exact.
  const int patches = plan::patch_count(engine.layout);
  if (patches > 1) {
    out["pipefusion"] =
        str("stages ", engine.layout.pipeline, ", patches ", patches, ", warmup ", engine.layout.warmup);
  }
  return out;
}

}  // namespace atelier::app
