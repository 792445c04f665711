// Encoders of pictures that a model is shown: pixels to states. They run whole, never in parts.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "nn/builder.h"
#include "weights/names.h"

namespace atelier::models {

class ImageEncoder {
 public:
  virtual ~ImageEncoder() = default;
  // pixels [n, 3, side, side], scaled and normalised as the folder's image processor says -> states before
  // the last layer, without the norm behind it, [n, T, C].
  virtual at::Tensor encode(const at::Tensor& pixels) const = 0;
};

struct ImageEncoderFamily {
  std::vector<std::string_view> classes;  // "architectures" in config.json
  std::vector<weights::NameRule> (*names)();
  std::vector<std::string_view> ignorable;  // tensors that checkpoints hold and nobody needs
  std::unique_ptr<ImageEncoder> (*build)(const Json& config, const nn::Builder&);
  int64_t (*width)(const Json& config);  // channels of the states
};

// Throws Error(kCheckpoint) naming the classes that are known.
const ImageEncoderFamily& find_image_encoder(const Json& config);

}  // namespace atelier::models
