#include "pipeline/component.h"

#include <nlohmann/json.hpp>

#include "models/image_encoder.h"
#include "models/text_encoder.h"
#include "models/vae.h"
#include "nn/single_rank.h"

namespace atelier::pipeline {

Error about_config(const Component& c, const Error& error) {
  constexpr std::string_view kFile = "config.json";
  const std::string_view text = error.what();
  const auto at = text.find(kFile);
  // at its beginning: "transformer/config.json: ", "text encoder config.json: "
  if (at == text.npos || text.substr(0, at).find_first_of(":\n") != text.npos) return error;
  return {error.kind(), str(c.name, "/", text.substr(at))};
}

namespace {

void build_whole(const models::Family& family, const Component& c, const weights::WeightStore& store) {
  nn::SingleRank whole;
  const auto b = whole.builder(store, at::TensorOptions(at::kBFloat16).device(at::kMeta));
  const Range blocks{0, c.kind == Component::ComponentKind::kDenoiser ? family.facts(*c.config).blocks : 0};
  switch (c.kind) {
    case Component::ComponentKind::kDenoiser:
      family.build(*c.config, b, std::span(&blocks, 1));
      break;
    case Component::ComponentKind::kVae:
      models::find_vae(*c.config).build(*c.config, b);
      break;
    case Component::ComponentKind::kEncoder:
      models::find_encoder(*c.config).build(*c.config, b);
      break;
    case Component::ComponentKind::kImageEncoder:
      models::find_image_encoder(*c.config).build(*c.config, b);
  }
}

std::vector<weights::NameRule> rules_of(const models::Family& family, const Component& c) {
  switch (c.kind) {
    case Component::ComponentKind::kDenoiser:
      return family.names(*c.config);
    case Component::ComponentKind::kVae:
      return models::find_vae(*c.config).names(*c.config);
    case Component::ComponentKind::kImageEncoder:
      return models::find_image_encoder(*c.config).names();
    default:
      return models::find_encoder(*c.config).names();
  }
}

}  // namespace

void build_shapes(const models::Family& family, const Component& c, const weights::WeightStore& store) {
  of_config(c, [&] { build_whole(family, c, store); });
}

std::vector<weights::ManifestEntry> tensors_of(const models::Family& family, const Component& c) {
  const auto any = weights::WeightStore::dummy(0);
  build_shapes(family, c, *any);
  return any->manifest();
}

std::vector<weights::NameRule> names_of(const models::Family& family, const Component& c) {
  return of_config(c, [&] { return rules_of(family, c); });
}

std::span<const std::string_view> ignorable_of(const models::Family& family, const Component& c) {
  switch (c.kind) {
    case Component::ComponentKind::kDenoiser:
      return family.ignorable;
    case Component::ComponentKind::kVae:
      return models::find_vae(*c.config).ignorable;
    case Component::ComponentKind::kImageEncoder:
      return models::find_image_encoder(*c.config).ignorable;
    default:
      return models::find_encoder(*c.config).ignorable;
  }
}

int64_t numbers_in(const weights::WeightStore& store) {
  int64_t sum = 0;
  for (const auto& entry : store.manifest())
    sum += weights::is_added(entry.name) ? 0 : c10::multiply_integers(entry.shape);
  return sum;
}

Json class_of(const Component& c) {
  const auto& config = *c.config;
  if (config.contains("architectures")) return {"transformers", config["architectures"].front()};
  return {"diffusers", config["_class_name"]};
}

}  // namespace atelier::pipeline
