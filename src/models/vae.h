// Picture autoencoders: latents to pixels and back. A frame may hold some of the picture's rows.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "nn/builder.h"
#include "nn/call_context.h"
#include "weights/names.h"

namespace atelier::models {

struct VaeFacts {
  int64_t latent_channels = 16;
  int64_t spatial = 8;  // pixels per latent row
  double scale = 1, shift = 0;
  std::vector<double> mean, deviation;  // of the latents, by channel; empty: 0 and 1
  int64_t sample_size = 512;            // pixels of a tile's side
  int64_t full_width = 64;              // channels at the size of the picture
};

class Vae {
 public:
  virtual ~Vae() = default;
  virtual const VaeFacts& facts() const = 0;
  // z [B, C, h, w] (rows held here) -> [B, 3, spatial*h, spatial*w], about [-1, 1], not clamped. The frame's
  // one stream are the latent's positions; CallContext::streams[0].unit is a row.
  virtual at::Tensor decode(const nn::CallContext&, const at::Tensor& z) const = 0;
  // x [B, 3, H, W] in [-1, 1] -> moments [B, 2C, h, w]: means, then log-variances (not clamped).
  virtual at::Tensor encode(const nn::CallContext&, const at::Tensor& x) const = 0;
};

struct VaeFamily {
  std::vector<std::string_view> classes;
  std::vector<weights::NameRule> (*names)(const Json& config);
  std::vector<std::string_view> ignorable;
  VaeFacts (*facts)(const Json& config);
  std::unique_ptr<Vae> (*build)(const Json& config, const nn::Builder&);
};

// Throws Error(kCheckpoint).
const VaeFamily& find_vae(const Json& config);

// A frame for a picture whose `rows` latent rows of `cols` are split into `parts`, of which this is number
// `part`.
nn::CallContext image_call(int64_t rows, int64_t cols, int parts, int part);

// Overlapping tiles, blended linearly over a quarter of a tile (diffusers autoencoder_kl.py tiled_decode,
// tiled_encode). Pictures that fit one tile are decoded whole. Group norms see one tile: the result differs.
at::Tensor decode_tiled(const Vae& vae, const at::Tensor& z);
at::Tensor encode_tiled(const Vae& vae, const at::Tensor& x);

}  // namespace atelier::models
