// The table of networks that are called from outside, one line per family, and what they take.
#include "models/network_call.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include <algorithm>

#include "base/error.h"
#include "models/config.h"
#include "models/hunyuan_dit/config.h"
#include "models/sd3/config.h"
#include "models/sdxl/unet.h"
#include "models/wan/config.h"

namespace atelier::models {
namespace {

std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string out;
  for (const int64_t n : sizes) out += str(out.empty() ? "" : ", ", n < 0 ? std::string("any") : str(n));
  return "[" + out + "]";
}

std::string list(const auto& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

}  // namespace

at::Tensor NetworkInputs::take(std::string_view name, const std::vector<int64_t>& sizes) {
  const auto found = take_if_there(name, sizes);
  if (!found.defined())
    throw Error(Kind::kUsage, str("a call of the family ", family_, " needs ", name, ", and there is none"));
  return found;
}

at::Tensor NetworkInputs::take_if_there(std::string_view name, const std::vector<int64_t>& sizes) {
  asked_.emplace_back(name);
  const auto at = tensors_.find(name);
  if (at == tensors_.end()) return {};
  std::vector<int64_t> wanted{batch_};
  wanted.insert(wanted.end(), sizes.begin(), sizes.end());
  const auto found = at->second.sizes().vec();
  bool fits = found.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); ++i)
    fits = wanted[i] < 0 ? found[i] > 0 : found[i] == wanted[i];
  if (!fits) {
    throw Error(Kind::kUsage,
                str("a call of the family ", family_, " takes ", name, " as ", shape_text(wanted),
                    ", given was ", shape_text(found), ": is the conditioning of another kind of model?"));
  }
  auto taken = std::move(at->second);
  tensors_.erase(at);
  return taken;
}

double NetworkInputs::take_number(std::string_view name, double otherwise) {
  const auto values = take_if_there(name, {});
  return values.defined() ? values[0].item<double>() : otherwise;
}

void NetworkInputs::refuse_rest() const {
  if (tensors_.empty()) return;
  std::vector<std::string_view> rest;
  for (const auto& [name, tensor] : tensors_) rest.push_back(name);
  throw Error(Kind::kUsage, str("a call of the family ", family_, " cannot take ", list(rest), "; it takes ",
                                list(asked_)));
}

namespace {

// Text states as a joint stream.
nn::Conditioning joint_text(NetworkInputs& inputs, int64_t text_width, int64_t pooled_width) {
  return {.streams = {inputs.take("context", {-1, text_width}).transpose(0, 1).contiguous()},
          .whole = {{"pooled", inputs.take("y", {pooled_width})}}};
}

// Guidance comes with every call, also of models that were not distilled with it.
nn::Conditioning condition_flux(const Json& config, NetworkInputs& inputs) {
  const ConfigReader read(config, "transformer/config.json");
  auto made = joint_text(inputs, read.positive("joint_attention_dim", 4096),
                         read.positive("pooled_projection_dim", 768));
  made.guidance = inputs.take_number("guidance", 3.5);
  return made;
}

nn::Conditioning condition_sd3(const Json& config, NetworkInputs& inputs) {
  const Sd3Config c(config);
  return joint_text(inputs, c.text_width, c.pooled_width);
}

// `y` is the pooled text; the six sizes, whose sinusoids the published network takes behind it, come as time_ids.
nn::Conditioning condition_sdxl(const Json& config, NetworkInputs& inputs) {
  const UNetConfig c(config);
  return {.whole = {{"embeds", inputs.take("context", {-1, c.text_width})},
                    {"pooled", inputs.take("y", {c.added_width - 6 * c.size_width})},
                    {"time_ids", inputs.take("time_ids", {6})}}};
}

// Sizes come with every call, also of models that take none.
nn::Conditioning condition_hunyuan(const Json& config, NetworkInputs& inputs) {
  const HunyuanConfig c(config);
  nn::Conditioning out{
      .whole = {{"embeds", inputs.take("context", {c.text_tokens, c.text_width})},
                {"mask", inputs.take("text_embedding_mask", {c.text_tokens})},
                {"embeds_2", inputs.take("encoder_hidden_states_t5", {c.t5_tokens, c.t5_width})},
                {"mask_2", inputs.take("text_embedding_mask_t5", {c.t5_tokens})}}};
  const auto sizes = inputs.take_if_there("image_meta_size", {6});
  if (c.has_sizes && !sizes.defined())
    throw Error(Kind::kUsage, "a call of the family hunyuan_dit needs image_meta_size, and there is none");
  if (c.has_sizes) out.whole["sizes"] = sizes;
  return out;
}

// Text of any length, padded by the caller; states of pictures where the model was made for them.
nn::Conditioning condition_wan(const Json& config, NetworkInputs& inputs) {
  const WanConfig c(config);
  nn::Conditioning out{.whole = {{"embeds", inputs.take("context", {-1, c.text_width})}}};
  if (c.image_width > 0)
    out.whole["image"] =
        inputs.take("clip_fea", {c.image_positions > 0 ? c.image_positions : -1, c.image_width});
  return out;
}

int64_t channels_of_wan(const Json& config) {
  return WanConfig(config).channels;
}

GivenLatents control_of_vace(const Json& config, NetworkInputs& inputs, const Grid& grid) {
  const WanConfig c(config);
  GivenLatents given;
  given.control = inputs.take("vace_context",
                              {c.control_channels, grid.latent_frames, grid.latent_rows, grid.latent_cols});
  given.control_scales = at::full({std::ssize(c.control_layers)}, inputs.take_number("vace_strength", 1.0));
  return given;
}

constexpr NetworkCall kCalls[] = {
    {"flux", condition_flux},
    {"hunyuan_dit", condition_hunyuan},
    {"sd3", condition_sd3},
    {"sdxl", condition_sdxl},
    {"wan", condition_wan, channels_of_wan},
    {"wan_i2v", condition_wan, channels_of_wan},
    {"wan_vace", condition_wan, channels_of_wan, control_of_vace},
};

}  // namespace

const NetworkCall* find_network_call(std::string_view family) {
  const auto found =
      std::find_if(std::begin(kCalls), std::end(kCalls), [&](const auto& c) { return c.family == family; });
  return found == std::end(kCalls) ? nullptr : found;
}

}  // namespace atelier::models
