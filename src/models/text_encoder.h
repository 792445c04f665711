// Text encoders: token ids to states. They run whole, never in parts.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "nn/builder.h"
#include "weights/names.h"

namespace atelier::models {

struct EncoderOutput {
  at::Tensor states;               // last_hidden_state, [B, T, C]
  at::Tensor pooled;               // [B, C]; undefined where the encoder has none
  at::Tensor projected;            // pooled times the projection, [B, P]; undefined without one
  std::vector<at::Tensor> hidden;  // input of the first layer, then every layer's output, [B, T, C]
};

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // ids [B, T], int64; mask [B, T], int64, 1 where a token counts; undefined: all count.
  virtual EncoderOutput encode(const at::Tensor& ids, const at::Tensor& mask) const = 0;
  // The norm behind the last layer, for those that take an earlier layer's states.
  virtual at::Tensor final_norm(const at::Tensor& states) const = 0;
};

struct EncoderFamily {
  std::vector<std::string_view> classes;  // "architectures" in config.json
  std::vector<weights::NameRule> (*names)();
  std::vector<std::string_view> ignorable;  // tensors that checkpoints hold and nobody needs
  std::unique_ptr<TextEncoder> (*build)(const Json& config, const nn::Builder&);
};

// Throws Error(kCheckpoint) naming the classes that are known.
const EncoderFamily& find_encoder(const Json& config);

}  // namespace atelier::models
