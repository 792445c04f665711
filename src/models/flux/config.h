// The shape of FLUX.1 as its transformer's config.json describes it.
#pragma once
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/model_facts.h"
#include "base/partition.h"
#include "models/config.h"

namespace atelier::models {

struct FluxConfig {
  Dim heads{24, 128};
  int64_t width = 3072, in_channels = 64, text_width = 4096, pooled_width = 768;
  int doubles = 19, singles = 38;
  std::vector<int64_t> axes{16, 56, 56};
  bool guidance = false;

  explicit FluxConfig(const Json& j) {
    const ConfigReader read(j, "transformer/config.json");
    heads = {read.positive("num_attention_heads", 24), read.positive("attention_head_dim", 128)};
    width = heads.size();
    in_channels = read.positive("in_channels", 64);
    text_width = read.positive("joint_attention_dim", 4096);
    pooled_width = read.positive("pooled_projection_dim", 768);
    doubles = static_cast<int>(read.layers("num_layers", 19));
    singles = static_cast<int>(read.layers("num_single_layers", 38));
    axes = read.integers("axes_dims_rope", {16, 56, 56});
    guidance = read.boolean("guidance_embeds", false);
    int64_t sum = 0;
    bool pairs = true;
    for (const int64_t a : axes) sum += a, pairs = pairs && a >= 0 && a % 2 == 0;
    if (axes.size() != 3 || sum != heads.unit || !pairs) {
      throw Error(Kind::kCheckpoint,
                  str("transformer/config.json: axes_dims_rope must be three even numbers whose sum is ",
                      "attention_head_dim (", heads.unit, "), found a sum of ", sum));
    }
    if (const int64_t out = read.positive("out_channels", in_channels); out != in_channels) {
      throw Error(Kind::kCheckpoint,
                  str("transformer/config.json: in_channels is ", in_channels, " and out_channels ", out,
                      "; models that take pictures or masks beside the latents are not in this build"));
    }
    if (in_channels % 4 != 0 || read.positive("patch_size", 1) != 1) {
      throw Error(Kind::kCheckpoint,
                  "transformer/config.json: expected patch_size 1 and in_channels divisible by 4");
    }
  }
  int blocks() const { return doubles + singles; }
};

// What each block multiplies, without counts. Throws Error(kCheckpoint).
ModelWork work_flux(const Json& config);

}  // namespace atelier::models
