#include "app/run/kernel_checks.h"

#include "base/error.h"
#include "pipeline/deterministic.h"
#include "pipeline/tier.h"

namespace atelier::app {

void check_kernels(const Resolved& resolved, const RunSpec& spec) {
  auto engine = spec.job.engine;
  if (engine.deterministic) {
    engine.vae_tiling =
        engine.vae_tiling || resolved.settings.engine.enable_vae_tiling;  // also where rows are cut
    auto problem = pipeline::deterministic_problem(engine);
    for (const auto& r : spec.requests.requests) {
      if (problem.empty()) problem = pipeline::deterministic_problem(r);
    }
    if (!problem.empty())
      throw Error(Kind::kUsage, str(resolved.origin("deterministic").text, ": ", problem));
  }
  const auto options = pipeline::load_options(engine, spec.device.device);
  pipeline::check_tier(options.tier, spec.facts, options.device);
  pipeline::check_attention(options.attention, options.denoiser, options.device);
  pipeline::check_attention_dtype(options.attention_dtype, options.attention, options.denoiser,
                                  options.device);
  if (!spec.work.blocks.empty())
    pipeline::check_attention_heads(options.attention_dtype, spec.facts.name, spec.work.head_size);
}

}  // namespace atelier::app
