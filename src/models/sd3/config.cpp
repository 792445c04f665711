#include "models/sd3/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"

namespace atelier::models {
namespace {

constexpr const char* kFile = "transformer/config.json";

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw Error(Kind::kCheckpoint, str(kFile, ": ", parts...));
}

std::optional<nn::HeadNorm::NormKind> norm_of(const Json& json) {
  const auto found = json.find("qk_norm");
  if (found == json.end() || found->is_null()) return std::nullopt;
  if (*found == "rms_norm") return nn::HeadNorm::NormKind::kRms;
  if (*found == "layer_norm") return nn::HeadNorm::NormKind::kLayer;
  refuse("qk_norm must be null, rms_norm or layer_norm, found ", *found);
}

}  // namespace

Sd3Config::Sd3Config(const Json& json) {
  const ConfigReader read(json, kFile);
  heads = {read.positive("num_attention_heads", 18), read.positive("attention_head_dim", 64)};
  width = heads.size();
  channels = read.positive("in_channels", 16);
  text_width = read.positive("joint_attention_dim", 4096);
  pooled_width = read.positive("pooled_projection_dim", 2048);
  sample_size = read.positive("sample_size", 128, 8192);
  most_patches = read.positive("pos_embed_max_size", 96, 1 << 14);
  layers = static_cast<int>(read.layers("num_layers", 18));
  dual = read.integers("dual_attention_layers", {});
  qk_norm = norm_of(json);
  const auto fixed = [&](const char* key, int64_t otherwise, int64_t expected, const char* why) {
    const int64_t found = read.positive(key, otherwise);
    if (found != expected) refuse(key, " must be ", expected, " (", why, "), found ", found);
  };
  fixed("patch_size", 2, kPatch, "two latents along each side of a token");
  fixed("caption_projection_dim", 1152, width, "the model's width");
  const auto out = json.find("out_channels");  // null: as many as come in
  fixed("out_channels", out != json.end() && out->is_null() ? channels : 16, channels, "in_channels");
  if (const auto table = json.find("pos_embed_max_size"); table != json.end() && table->is_null())
    refuse("pos_embed_max_size is null; only models with a stored position table can be drawn with");
}

bool Sd3Config::is_dual(int block) const {
  return std::find(dual.begin(), dual.end(), block) != dual.end();
}

}  // namespace atelier::models
