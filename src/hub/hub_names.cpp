#include "hub/hub_names.h"

#include <algorithm>
#include <array>

namespace atelier::hub {
namespace {

// Besides the last part of every id here, which is an alias too.
constexpr std::array kAliases{
    Alias{"flux-dev", "black-forest-labs/FLUX.1-dev"},
    Alias{"flux1-dev", "black-forest-labs/FLUX.1-dev"},
    Alias{"flux-schnell", "black-forest-labs/FLUX.1-schnell"},
    Alias{"flux1-schnell", "black-forest-labs/FLUX.1-schnell"},
    Alias{"sd3", "stabilityai/stable-diffusion-3-medium-diffusers"},
    Alias{"sd3-medium", "stabilityai/stable-diffusion-3-medium-diffusers"},
    Alias{"stable-diffusion-3-medium", "stabilityai/stable-diffusion-3-medium-diffusers"},
    Alias{"sd3.5-medium", "stabilityai/stable-diffusion-3.5-medium"},
    Alias{"sd3.5-large", "stabilityai/stable-diffusion-3.5-large"},
    Alias{"sd3.5-large-turbo", "stabilityai/stable-diffusion-3.5-large-turbo"},
    Alias{"sdxl", "stabilityai/stable-diffusion-xl-base-1.0"},
    Alias{"pixart-alpha", "PixArt-alpha/PixArt-XL-2-1024-MS"},
    Alias{"pixart-sigma", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"},
    Alias{"hunyuan-dit", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"},
    Alias{"hunyuandit", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"},
    Alias{"hunyuandit-v1.2", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"},
    Alias{"hunyuandit-v1.2-distilled", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers-Distilled"},
    Alias{"hunyuandit-v1.1", "Tencent-Hunyuan/HunyuanDiT-v1.1-Diffusers"},
    Alias{"wan2.1-t2v-1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"},
    Alias{"wan2.1-t2v-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers"},
    Alias{"wan2.1-i2v-14b-480p", "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"},
    Alias{"wan2.1-i2v-14b-720p", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"},
    Alias{"wan2.1-flf2v-14b-720p", "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers"},
    Alias{"wan2.1-vace-1.3b", "Wan-AI/Wan2.1-VACE-1.3B-diffusers"},
    Alias{"wan2.1-vace-14b", "Wan-AI/Wan2.1-VACE-14B-diffusers"},
    Alias{"wan2.2-t2v-a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"},
    Alias{"wan2.2-i2v-a14b", "Wan-AI/Wan2.2-I2V-A14B-Diffusers"},
    Alias{"wan2.2-ti2v-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"},
};

std::string_view last_part(std::string_view id) {
  return id.substr(id.find('/') + 1);
}

}  // namespace

std::vector<Alias> aliases() {
  std::vector<Alias> all(kAliases.begin(), kAliases.end());
  for (const auto& a : kAliases) {
    const auto name = last_part(a.id);
    const bool known = std::any_of(all.begin(), all.end(), [&](auto& b) { return b.name == name; });
    if (!known) all.push_back({name, a.id});
  }
  return all;
}

}  // namespace atelier::hub
