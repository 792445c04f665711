#include "models/vae/wan_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"

namespace atelier::models {
namespace {

constexpr const char* kFile = "vae/config.json";

// Of the encoder's chunks: four frames, halved as long as there are two.
constexpr int64_t kMostTemporal = 4;

std::vector<bool> truths(const Json& json, const char* key, const std::vector<bool>& otherwise) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return otherwise;
  const bool fits = found->is_array() &&
                    std::all_of(found->begin(), found->end(), [](const Json& v) { return v.is_boolean(); });
  if (!fits) throw Error(Kind::kCheckpoint, str(kFile, ": ", key, " must be a list of true and false"));
  return found->get<std::vector<bool>>();
}

// A way around without weights makes `out` channels of `in`, each `factor` times: one count must
// divide the other.
void check_way_around(int64_t in, int64_t out, int64_t factor, const char* side) {
  const bool fits = in * factor % out == 0;
  if (!fits) {
    throw Error(Kind::kCheckpoint, str(kFile, ": dim_mult makes ", in, " channels beside ", out, " in the ",
                                       side, ", which no way around without weights can join"));
  }
}

void check_ways_around(const WanVaeConfig& c) {
  const auto factor = [&](int64_t level) {
    return (c.is_last(level) ? 1 : 4) * (c.changes_time(level) ? 2 : 1);
  };
  for (int64_t i = 0; i < c.levels(); ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t before = i == 0 ? 1 : c.multipliers[at - 1];
    check_way_around(c.encoder_width * before, c.encoder_width * c.multipliers[at], factor(i), "encoder");
    if (i == 0) continue;
    // The decoder comes from level i + 1 (or begins at i) and doubles towards i - 1.
    const int64_t above = c.is_last(i) ? c.multipliers[at] : c.multipliers[at + 1];
    check_way_around(c.decoder_width * c.multipliers[at], c.decoder_width * above, factor(i - 1), "decoder");
  }
}

VaeFacts facts_of(const WanVaeConfig& c, const ConfigReader& read) {
  VaeFacts f{.latent_channels = c.latent, .spatial = c.square << (c.levels() - 1)};
  f.mean = read.numbers("latents_mean");
  f.deviation = read.numbers("latents_std");
  if (std::ssize(f.mean) != c.latent || std::ssize(f.deviation) != c.latent) {
    throw Error(Kind::kCheckpoint, str(kFile, ": latents_mean has ", f.mean.size(), " and latents_std ",
                                       f.deviation.size(), " numbers; z_dim is ", c.latent));
  }
  if (std::any_of(f.deviation.begin(), f.deviation.end(), [](double v) { return v == 0; }))
    throw Error(Kind::kCheckpoint, str(kFile, ": a number of latents_std is zero"));
  f.tiles = {256, 192};  // upstream: the constructor
  f.has_frames = true;
  for (int64_t i = 0; i < c.levels(); ++i) f.temporal *= c.changes_time(i) ? 2 : 1;
  f.full_width =
      std::max<int64_t>(1, c.decoder_width * c.multipliers[0] * f.temporal / (c.square * c.square));
  f.is_clamped = true;
  return f;
}

}  // namespace

WanVaeConfig::WanVaeConfig(const Json& json) {
  const ConfigReader read(json, kFile);
  encoder_width = read.positive("base_dim", 96);
  decoder_width = read.positive("decoder_base_dim", encoder_width);
  multipliers = read.integers("dim_mult", {1, 2, 4, 4});
  halves_time = truths(json, "temperal_downsample", {false, true, true});
  attention_scales = read.numbers("attn_scales");
  layers = read.layers("num_res_blocks", 2);
  latent = read.positive("z_dim", 16);
  is_residual = read.boolean("is_residual", false);
  square = read.positive("patch_size", 1, 16);
  said_spatial = read.positive("scale_factor_spatial", 8);
  const bool has_levels =
      !multipliers.empty() && levels() <= 8 &&
      std::all_of(multipliers.begin(), multipliers.end(), [](int64_t m) { return m > 0; });
  if (!has_levels || std::ssize(halves_time) != levels() - 1) {
    throw Error(
        Kind::kCheckpoint,
        str(kFile, ": dim_mult must have 1 to 8 positive numbers and temperal_downsample one fewer, found ",
            multipliers.size(), " and ", halves_time.size()));
  }
  if (read.positive("in_channels", 3) != channels() || read.positive("out_channels", 3) != channels()) {
    throw Error(Kind::kCheckpoint, str(kFile, ": in_channels and out_channels must be ", channels(),
                                       ", 3 colours of patch_size ", square, " squared"));
  }
  if (said_spatial % square != 0)
    throw Error(Kind::kCheckpoint, str(kFile, ": scale_factor_spatial ", said_spatial,
                                       " is no multiple of patch_size ", square));
  if (is_residual) check_ways_around(*this);
  facts = facts_of(*this, read);
  if (facts.temporal > kMostTemporal) {
    throw Error(Kind::kCheckpoint, str(kFile, ": temperal_downsample halves the frames ", facts.temporal,
                                       "-fold in all; chunks of ", kMostTemporal, " frames cannot be"));
  }
}

}  // namespace atelier::models
