// The last stage of a request: latents to images, whole on the leader or by rows on all ranks of a replica.
#pragma once
#include <memory>
#include <vector>

#include "media/image.h"
#include "models/vae.h"
#include "parallel/parallel_context.h"
#include "pipeline/activation_recorder.h"
#include "pipeline/model_repo.h"
#include "pipeline/residency.h"

namespace atelier::pipeline {

class ImageStage {
 public:
  struct DecodeOptions {
    c10::Device device = c10::kCPU;
    at::ScalarType type = at::kFloat;
    bool slicing = false, tiling = false;  // one image at a time; overlapping tiles
    Residency residency = Residency::kResident;
  };
  // Loads the autoencoder. Its rows are cut over the replica if the layout says so.
  ImageStage(const ModelRepo& model, const parallel::ParallelContext& parallel_context,
             const DecodeOptions& options);

  // latents [B, C, h, w] as the denoiser leaves them -> [B, 3, H, W] in [0, 1], float; by rows: on every
  // rank.
  at::Tensor decode(const at::Tensor& latents, ActivationRecorder* probes) const;

 private:
  const parallel::ParallelContext& parallel_context_;
  DecodeOptions options_;
  std::unique_ptr<nn::BlockMemory> memory_;
  std::unique_ptr<models::Vae> vae_;
};

// [B, 3, H, W] or [B, 3, frames, H, W] in [0, 1] -> 8 bits, rounded half to even. A single frame is an image.
std::vector<media::Artifact> to_artifacts(const at::Tensor& images, double fps = 0);

}  // namespace atelier::pipeline
