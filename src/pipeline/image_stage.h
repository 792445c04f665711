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

// Who codes a picture. Ranks that share it all take part, each with its rows.
enum class CodedBy : uint8_t { kThisRank, kAllRanks };

class ImageStage {
 public:
  struct DecodeOptions {
    c10::Device device = c10::kCPU;
    at::ScalarType type = at::kFloat;
    bool slicing = false, tiling = false;  // one image at a time; overlapping tiles
    Residency residency = Residency::kResident;
  };
  // Loads the autoencoder. The layout says whether its rows can be cut over the replica.
  ImageStage(const ModelRepo& model, const parallel::ParallelContext& parallel_context,
             const DecodeOptions& options);

  // latents [B, C, (f,) h, w] as the denoiser leaves them -> [B, 3, (F,) H, W] in [0, 1], float; by all: on
  // every rank, which all call it with the same latents.
  at::Tensor decode(const at::Tensor& latents, CodedBy by, ActivationRecorder* probes) const;
  // The same of latents that are still on their way, by this rank. finally: who decodes them at the end; what
  // all ranks share is looked at in tiles, so that it takes no more memory than one of them.
  at::Tensor glimpse(const at::Tensor& latents, CodedBy finally) const;
  // x [B, 3, (F,) H, W] in [-1, 1] -> moments [B, 2C, (f,) h, w]: means, then log-variances; float. By all:
  // on every rank, which all call it with the same x.
  at::Tensor encode(const at::Tensor& x, CodedBy by) const;
  // The same -> latents [B, C, (f,) h, w] as the denoiser works on them: the posterior's mode.
  at::Tensor encode_mode(const at::Tensor& x, CodedBy by) const;

 private:
  at::Tensor decode(const at::Tensor& latents, CodedBy by, bool in_tiles, ActivationRecorder* probes) const;
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
