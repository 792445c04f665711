#include "pipeline/part_widths.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "models/image_encoder.h"
#include "models/vae.h"

namespace atelier::pipeline {
namespace {

const Component* find(std::span<const Component> components, std::string_view name) {
  const auto found =
      std::find_if(components.begin(), components.end(), [&](const Component& c) { return c.name == name; });
  return found == components.end() ? nullptr : &*found;
}

std::optional<int64_t> width_of(const Component& encoder, models::TextWidth::Of of) {
  const auto& family = models::find_encoder(*encoder.config);
  if (!family.widths) return std::nullopt;
  const auto widths = of_config(encoder, [&] { return family.widths(*encoder.config); });
  switch (of) {
    case models::TextWidth::Of::kStates:
      return widths.states;
    case models::TextWidth::Of::kPooled:
      return widths.pooled;
    default:
      return widths.projected;
  }
}

std::string_view words_for(models::TextWidth::Of of) {
  switch (of) {
    case models::TextWidth::Of::kStates:
      return "states";
    case models::TextWidth::Of::kPooled:
      return "pooled states";
    default:
      return "projected states";
  }
}

std::string text_misfit(const models::TextWidth& width, const Component& denoiser,
                        std::span<const Component> components) {
  int64_t sum = 0;
  std::string givers;
  for (const auto name : width.encoders) {
    const auto* encoder = find(components, name);
    if (encoder == nullptr) continue;
    const auto one = width_of(*encoder, width.of);
    if (!one) return {};
    sum += *one;
    givers += str(givers.empty() ? "" : " and ", encoder->name);
    if (width.encoders.size() > 1) givers += str(" (", *one, ")");
  }
  if (givers.empty() || sum == width.wanted) return {};
  return str(denoiser.name, " takes ", words_for(width.of), " of ", width.wanted, " channels (", width.key,
             "), ", givers, " give", width.encoders.size() == 1 ? "s " : " ", sum,
             ": they are parts of different models, take both from one");
}

std::string image_misfit(const models::Family& family, const Component& denoiser,
                         std::span<const Component> components) {
  if (!family.image_width) return {};
  const int64_t wanted = of_config(denoiser, [&] { return family.image_width(*denoiser.config); });
  if (wanted == 0) return {};
  const auto* encoder = find(components, family.image_encoder);
  if (encoder == nullptr)
    return str(denoiser.name, " takes states of an image encoder (image_dim), but the model has no ",
               family.image_encoder);
  const int64_t given = of_config(
      *encoder, [&] { return models::find_image_encoder(*encoder->config).width(*encoder->config); });
  if (given == wanted) return {};
  return str(denoiser.name, " takes states of ", wanted, " channels (image_dim), ", encoder->name, " gives ",
             given, ": they are parts of different models, take both from one");
}

std::string latent_misfit(const models::Family& family, const Component& denoiser, const Component& vae) {
  const auto facts = of_config(vae, [&] { return models::find_vae(*vae.config).facts(*vae.config); });
  const auto size = of_config(denoiser, [&] { return family.defaults(*denoiser.config); });
  models::Grid drawn;
  try {
    drawn = family.grid(*denoiser.config, facts.spatial, size.height, size.width, 1);
  } catch (const Error&) {
    return {};  // cannot draw its default size with this autoencoder; which can be drawn, requests will show
  }
  if ((drawn.latent_frames > 0) != facts.has_frames) {
    const auto kind = [](bool has_frames) { return has_frames ? "videos" : "pictures"; };
    return str(denoiser.name, " draws ", kind(!facts.has_frames), ", ", vae.name, " takes ",
               kind(facts.has_frames), ": they are parts of different models, take both from one");
  }
  if (drawn.latent_channels == facts.latent_channels) return {};
  return str(denoiser.name, " draws latents of ", drawn.latent_channels, " channels, ", vae.name, " takes ",
             facts.latent_channels, ": they are parts of different models, take both from one");
}

}  // namespace

std::string misfits(const models::Family& family, std::span<const Component> components) {
  std::vector<std::string> lines;
  const auto* vae = find(components, "vae");
  for (const auto name : family.experts) {
    const auto* denoiser = find(components, name);
    if (denoiser == nullptr) continue;
    if (vae != nullptr) lines.push_back(latent_misfit(family, *denoiser, *vae));
    lines.push_back(image_misfit(family, *denoiser, components));
    if (!family.text_widths) continue;
    for (const auto& width : of_config(*denoiser, [&] { return family.text_widths(*denoiser->config); }))
      lines.push_back(text_misfit(width, *denoiser, components));
  }
  std::string all;
  for (const auto& line : lines) {
    if (!line.empty()) all += str(all.empty() ? "" : "\n", line);
  }
  return all;
}

}  // namespace atelier::pipeline
