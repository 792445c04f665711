#include "pipeline/vision_stage.h"

#include <ATen/ops/stack.h>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "nn/single_rank.h"

namespace atelier::pipeline {

VisionStage::VisionStage(const ModelRepo& model, c10::Device device, at::ScalarType type, Residency residency)
    : device_(device),
      memory_(component_memory(residency)),
      processor_(model.image_processor(),
                 model.component(model.family().image_encoder).config->value("image_size", int64_t{224})) {
  const auto& component = model.component(model.family().image_encoder);
  const auto store = model.weights(component);
  nn::SingleRank whole;
  const nn::Builder b(*store, whole.seams, *memory_, at::TensorOptions(type).device(device));
  encoder_ = models::find_image_encoder(*component.config).build(*component.config, b);
  store->check();
  memory_->release();
}

at::Tensor VisionStage::encode(std::span<const std::vector<media::Image>> pictures,
                               ActivationRecorder* probes) const {
  std::vector<at::Tensor> pixels;
  for (const auto& of_sample : pictures) {
    ENSURE(of_sample.size() == pictures.front().size());
    for (const auto& picture : of_sample) pixels.push_back(processor_(picture));
  }
  const auto all = at::stack(pixels).to(device_);
  const nn::InPlace here(*memory_);
  const auto states = encoder_->encode(all);  // [B * pictures, T, C]
  if (probes) {
    probes->whole("image.clip_pixels", all);
    probes->whole("image.clip_embeds", states);
  }
  return states.view({std::ssize(pictures), -1, states.size(2)});
}

}  // namespace atelier::pipeline
