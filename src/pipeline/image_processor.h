// Pictures as an image encoder takes them.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>

#include "base/json.h"
#include "media/image.h"
#include "media/resample.h"

namespace atelier::pipeline {

// Resize, cut out the middle, scale, normalise, each if the configuration says so. Upstream: transformers
// image_processing_clip.py CLIPImageProcessor.
class ImageProcessor {
 public:
  // config: preprocessor_config.json; side: pixels that the encoder takes, where it does not say. Throws
  // Error(kCheckpoint) naming what is not supported.
  ImageProcessor(const Json& config, int64_t side);
  // An upright picture of any size -> [3, height, width], float. Throws Error(kUsage) where its sides are so
  // unlike that it would be resized to more than media::kMaxPixels.
  at::Tensor operator()(const media::Image& picture) const;

 private:
  // Height and width.
  std::array<int, 2> resized_to(const media::Image& picture) const;

  bool resizes_ = true, crops_ = true, rescales_ = true, normalises_ = true;
  std::array<int, 2>
      size_{};  // height, width; width 0: the shorter side is the height, the other one follows
  std::array<int, 2> crop_{};
  double factor_ = 1;
  std::array<double, 3> mean_{}, deviation_{};
  media::Filter filter_ = media::Filter::kBicubic;
};

}  // namespace atelier::pipeline
