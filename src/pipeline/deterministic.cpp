#include "pipeline/deterministic.h"

#include "base/error.h"

namespace atelier::pipeline {
namespace {

constexpr const char* kOthers = "take ulysses, kv_gather, cfg or data in place of it";

}  // namespace

std::string deterministic_problem(const EngineConfig& engine) {
  const auto& d = engine.layout;
  if (engine.device != "cpu")
    return str("deterministic is for the CPU, where sums have one order; asked was device ", engine.device,
               ": take --device cpu");
  if (d.ring > 1)
    return str("ring ", d.ring, " adds what ranks attended to in another order on each of them: ", kOthers);
  if (d.tensor > 1)
    return str("tensor ", d.tensor, " cuts the sums of products in ", d.tensor, ": ", kOthers);
  if (d.pipeline > 1)
    return str("pipefusion ", d.pipeline,
               " was not made deterministic, and patches see stale keys: ", kOthers);
  if (engine.vae_tiling)
    return "vae_tiling blends tiles, which parallel decoding does not: leave it out, or take vae_slicing";
  if (engine.attention == "math")
    return "attention math has sums in the library's order: leave attention_backend out";
  return {};
}

std::string deterministic_problem(const request::Request& r) {
  if (!r.cache_type || r.cache_type == "none") return {};
  return str("cache_type ", *r.cache_type,
             " decides by sums over ranks, whose last bits differ between layouts: ",
             "a deterministic run computes every step; leave one of the two out");
}

}  // namespace atelier::pipeline
