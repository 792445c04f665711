// Autoencoders of pictures and videos: latents to pixels and back. A frame may hold some of
// the picture's rows.
//
// Pictures are [B, C, rows, W], videos [B, C, frames, rows, W]; what an autoencoder takes in one form it
// gives in the same.
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

// Square tiles that overlap, in pixels.
struct Tiles {
  int64_t size = 512;   // of a side
  double stride = 384;  // from one to the next
};

struct VaeFacts {
  int64_t latent_channels = 16;
  int64_t spatial = 8;  // pixels per latent row
  double scale = 1, shift = 0;
  std::vector<double> mean, deviation;  // of the latents, by channel; empty: 0 and 1
  Tiles tiles;                          // where the caller does not say
  int64_t full_width = 64;  // channels at the size of the picture, of all the frames that are there at once
  bool has_frames = false;  // of videos
  int64_t temporal = 1;     // frames per latent frame, but for the first, which is one
  bool is_clamped = false;  // the reference's decoder ends at -1 and 1

  int64_t frames(int64_t latent_frames) const { return 1 + (latent_frames - 1) * temporal; }
  int64_t latent_frames(int64_t frames) const { return 1 + (frames - 1) / temporal; }
};

class Vae {
 public:
  virtual ~Vae() = default;
  virtual const VaeFacts& facts() const = 0;
  // z [B, C, (f,) h, w] (rows held here) -> [B, 3, (F,) spatial*h, spatial*w], about [-1, 1], not clamped.
  // The call's one stream are the positions of a latent frame; CallContext::streams[0].unit is a row.
  virtual at::Tensor decode(const nn::CallContext&, const at::Tensor& z) const = 0;
  // x [B, 3, (F,) H, W] in [-1, 1] -> moments [B, 2C, (f,) h, w]: means, then log-variances (not clamped).
  // Throws Error(kCheckpoint) for a class that cannot.
  virtual at::Tensor encode(const nn::CallContext&, const at::Tensor& x) const = 0;

  // All rows, in overlapping tiles that are coded one by one, over all frames, and blended linearly where
  // they overlap: bounded memory for any size. Norms and attention see one tile, so the result differs from
  // that of the whole. What fits one tile is coded whole.
  virtual at::Tensor decode_tiled(const at::Tensor& z, const Tiles& tiles) const = 0;
  virtual at::Tensor encode_tiled(const at::Tensor& x, const Tiles& tiles) const = 0;
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

// A call for a picture, or a video's frames, whose `rows` latent rows of `cols` are split into `parts`, of
// which this is number `part`.
nn::CallContext image_call(int64_t rows, int64_t cols, int parts, int part);

}  // namespace atelier::models
