// What an image encoder sees in the pictures that a request shows.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "media/image.h"
#include "models/image_encoder.h"
#include "pipeline/activation_recorder.h"
#include "pipeline/image_processor.h"
#include "pipeline/model_repo.h"
#include "pipeline/residency.h"

namespace atelier::pipeline {

class VisionStage {
 public:
  // Loads the model's image encoder.
  VisionStage(const ModelRepo& model, c10::Device device, at::ScalarType type, Residency residency);
  // The pictures of each sample of a batch, upright, as many for each -> states [B, tokens of all, C].
  at::Tensor encode(std::span<const std::vector<media::Image>> pictures, ActivationRecorder* probes) const;

 private:
  c10::Device device_;
  std::unique_ptr<nn::BlockMemory> memory_;
  std::unique_ptr<models::ImageEncoder> encoder_;
  ImageProcessor processor_;
};

}  // namespace atelier::pipeline
