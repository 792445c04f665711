// Text encoders: token ids to states. They run whole, never in parts.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string>
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

// One encoder for all texts of a batch.
struct TextCall {
  std::string_view encoder;                                        // sub-folder of the pipeline
  int64_t length;                                                  // tokens; texts are cut or padded to it
  enum class Padding { kSeen, kMasked } padding = Padding::kSeen;  // by the encoder's own attention
  // Of a text before it is tokenized. kLowerStripped: as Python's lower().strip(); kUnescaped: HTML's
  // character references replaced, white space in single blanks.
  enum class Cleaning { kNone, kLowerStripped, kUnescaped } cleaning = Cleaning::kNone;
  int layer =
      0;  // states after which layer, counted from the end, without the final norm; 0: last_hidden_state
};

struct TextStates {
  at::Tensor states;             // [B, T, C]
  at::Tensor pooled, projected;  // as EncoderOutput
  std::vector<int64_t> lengths;  // tokens before the padding, per text
  at::Tensor mask;               // [B, T], int64: 1 for those, 0 for padding
};

// The text encoders of a loaded pipeline, as a family's condition() asks them.
class Encoders {
 public:
  virtual ~Encoders() = default;
  virtual bool has(std::string_view encoder) const = 0;  // of those that the family names as optional
  virtual TextStates encode(const TextCall& call, std::span<const std::string> texts) = 0;
};

// Channels of what an encoder gives; 0: it has none.
struct EncoderWidths {
  int64_t states = 0, pooled = 0, projected = 0;
};

struct EncoderFamily {
  std::vector<std::string_view> classes;  // "architectures" in config.json
  std::vector<weights::NameRule> (*names)();
  std::vector<std::string_view> ignorable;  // tensors that checkpoints hold and nobody needs
  std::unique_ptr<TextEncoder> (*build)(const Json& config, const nn::Builder&);
  EncoderWidths (*widths)(const Json& config) = nullptr;  // without building it; null: not told
  bool has_blocks = false;                                // it is a BlockedEncoder
};

// Throws Error(kCheckpoint) naming the classes that are known.
const EncoderFamily& find_encoder(const Json& config);

}  // namespace atelier::models
