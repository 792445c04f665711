// The last stage of a request: latents to pictures or videos, whole on the leader or by rows on all ranks of
// a replica; and the way back, of what a request begins with or is conditioned by.
#pragma once
#include <functional>
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

  // latents [B, C, (f,) h, w] as the denoiser leaves them -> [B, 3, (F,) H, W] in [0, 1], float; by rows:
  // on every rank.
  at::Tensor decode(const at::Tensor& latents, ActivationRecorder* probes) const;
  // x [B, 3, (F,) H, W] in [-1, 1] -> moments [B, 2C, (f,) h, w]: means, then log-variances; float. By rows:
  // on every rank, which all call it with the same x.
  at::Tensor encode(const at::Tensor& x) const;
  // The same -> latents [B, C, (f,) h, w] as the denoiser works on them: the posterior's mode.
  at::Tensor encode_mode(const at::Tensor& x) const;

 private:
  // Whole, or one picture at a time.
  at::Tensor sliced(const at::Tensor& batch, const std::function<at::Tensor(const at::Tensor&)>& run) const;
  const parallel::ParallelContext& parallel_context_;
  DecodeOptions options_;
  std::unique_ptr<nn::BlockMemory> memory_;
  std::unique_ptr<models::Vae> vae_;
};

// Bytes [B, (F,) H, W, 3] -> [B, 3, (F,) H, W] in [-1, 1], float.
at::Tensor from_bytes(const at::Tensor& pixels);

// What samplers work on, of a picture's moments: means + deviations * noise [B, C, (f,) h, w], brought to the
// scale of the latents (upstream: diffusers DiagonalGaussianDistribution).
at::Tensor sampled_latents(const at::Tensor& moments, const at::Tensor& noise, const models::VaeFacts& facts);

// [B, 3, H, W] or [B, 3, frames, H, W] in [0, 1] -> 8 bits, rounded half to even. A single frame is an image.
std::vector<media::Artifact> to_artifacts(const at::Tensor& images, double fps = 0);

}  // namespace atelier::pipeline
