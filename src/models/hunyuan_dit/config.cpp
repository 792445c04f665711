#include "models/hunyuan_dit/config.h"

#include <ATen/ops/tensor.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"
#include "models/network_inputs.h"

namespace atelier::models {
namespace {

constexpr const char* kFile = "transformer/config.json";

void check(bool is_fine, const char* rule) {
  if (!is_fine) throw Error(Kind::kCheckpoint, str(kFile, ": for HunyuanDiT ", rule));
}

// Height and width of the original and of the target, top and left of what is cut out: [6], float.
at::Tensor size_ids(const PromptBatch& p) {
  const std::array<int, 2> picture{static_cast<int>(p.height), static_cast<int>(p.width)};
  const auto original = p.sizes.original.value_or(std::array<int, 2>{1024, 1024});
  const auto target = p.sizes.target.value_or(picture),
             crop = p.sizes.crop.value_or(std::array<int, 2>{0, 0});
  return at::tensor({original[0], original[1], target[0], target[1], crop[0], crop[1]},
                    at::TensorOptions(at::kFloat));
}

// Text of one encoder with its mask; callers pad it to `fewest` tokens, and cut off nothing.
void take_hunyuan_text(NetworkInputs& inputs, const char* states, const char* mask, int64_t fewest,
                       int64_t width, const char* suffix, nn::Conditioning& out) {
  const auto text = inputs.take(states, {-1, width});
  if (text.size(1) < fewest)
    throw Error(Kind::kUsage,
                str(states, " has ", text.size(1), " tokens; HunyuanDiT takes ", fewest,
                    " or more, padded and masked: is it the conditioning of another kind of model?"));
  out.whole[str("embeds", suffix)] = text;
  out.whole[str("mask", suffix)] = inputs.take(mask, {text.size(1)});
}

}  // namespace

HunyuanConfig::HunyuanConfig(const Json& j) {
  const ConfigReader read(j, kFile);
  heads = {read.positive("num_attention_heads", 16), read.positive("attention_head_dim", 88)};
  width = heads.size();
  channels = read.positive("in_channels", 4);
  const double mlp = static_cast<double>(width) * read.above_zero("mlp_ratio", 4);
  check(mlp >= 1 && mlp < 1e9, "mlp_ratio must leave the feed-forward a channel, and not too many");
  mlp_width = static_cast<int64_t>(mlp);
  text_width = read.positive("cross_attention_dim", 1024);
  t5_width = read.positive("cross_attention_dim_t5", 2048);
  pooled_width = read.positive("pooled_projection_dim", 1024);
  text_tokens = read.positive("text_len", 77);
  t5_tokens = read.positive("text_len_t5", 256);
  sample_size = read.positive("sample_size", 32);
  blocks = static_cast<int>(read.layers("num_layers", 28));
  has_sizes = read.boolean("use_style_cond_and_image_meta_size", true);
  check(read.positive("patch_size", kPatch) == kPatch, "patch_size must be 2");
  check(read.positive("hidden_size", 1152) == width,
        "hidden_size must be num_attention_heads * attention_head_dim");
  check(heads.unit % 4 == 0, "attention_head_dim must be divisible by 4");
  check(blocks == 1 || blocks % 2 == 0, "num_layers must be even: each half skips to the other");
  check(read.text("activation_fn", "gelu-approximate") == "gelu-approximate",
        "activation_fn must be gelu-approximate");
  check(read.boolean("learn_sigma", true), "learn_sigma must be true: half of the output is discarded");
  check(t5_width % kPoolHeads == 0, "cross_attention_dim_t5 must be divisible by 8");
}

nn::Conditioning condition_hunyuan_dit(Encoders& encoders, const PromptBatch& p) {
  const HunyuanConfig c(p.denoiser);
  if (p.max_sequence_length < c.t5_tokens) {
    throw Error(Kind::kUsage, str("max_sequence_length is ", p.max_sequence_length,
                                  ", but HunyuanDiT always reads ", c.t5_tokens, " tokens; leave it unset"));
  }
  constexpr auto kMasked = TextCall::Padding::kMasked;
  const auto bert =
      encoders.encode({.encoder = "text_encoder", .length = c.text_tokens, .padding = kMasked}, p.texts[0]);
  const auto t5 =
      encoders.encode({.encoder = "text_encoder_2", .length = c.t5_tokens, .padding = kMasked}, p.texts[1]);
  nn::Conditioning out{
      .whole = {{"embeds", bert.states}, {"mask", bert.mask}, {"embeds_2", t5.states}, {"mask_2", t5.mask}}};
  if (!c.has_sizes) return out;
  out.whole["sizes"] = size_ids(p).repeat({bert.states.size(0), 1});
  return out;
}

nn::Conditioning condition_of_hunyuan_call(const Json& config, NetworkInputs& inputs) {
  const HunyuanConfig c(config);
  nn::Conditioning out;
  take_hunyuan_text(inputs, "context", "text_embedding_mask", c.text_tokens, c.text_width, "", out);
  take_hunyuan_text(inputs, "encoder_hidden_states_t5", "text_embedding_mask_t5", c.t5_tokens, c.t5_width,
                    "_2", out);
  if (c.has_sizes) {
    out.whole["sizes"] = inputs.take("image_meta_size", {6});
  } else {
    inputs.take_if_there("image_meta_size", {6});
  }
  return out;
}

}  // namespace atelier::models
