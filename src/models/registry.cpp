// The table of models.
#include <algorithm>

#include "models/family.h"

namespace atelier::models {

extern const Family kFlux;
extern const Family kHunyuanDit;
extern const Family kPixArtSigma, kPixArtAlpha;
extern const Family kSd3;
extern const Family kSdxl;
extern const Family kWan, kWanImage, kWanVace;

std::span<const Family* const> families() {
  static const Family* const all[] = {
      &kFlux, &kHunyuanDit, &kPixArtSigma, &kPixArtAlpha, &kSd3, &kSdxl, &kWan, &kWanImage, &kWanVace,
  };
  return all;
}

const Family* find_family(std::string_view class_name) {
  for (const Family* f : families()) {
    if (f->pipeline == class_name || f->denoiser == class_name) return f;
    if (std::find(f->editing.begin(), f->editing.end(), class_name) != f->editing.end()) return f;
  }
  return nullptr;
}

}  // namespace atelier::models
