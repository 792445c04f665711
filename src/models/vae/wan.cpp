// The causal autoencoders of Wan 2.1 and 2.2: Wan Team (arXiv 2503.20314), section 4.1. Upstream: diffusers
// autoencoder_kl_wan.py. A video goes through them chunk by chunk, so memory does not grow with its length.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/vae/autoencoders.h"
#include "models/vae/tiling.h"
#include "models/vae/wan_layers.h"
#include "models/vae/wan_names.h"

namespace atelier::models {
namespace {

using namespace nn;
using wan_vae::Chunk;

constexpr int64_t kChunk = 4;  // frames of every chunk of the encoder but the first, which has one

// [B, 3, f, H, W] -> [B, 3 square^2, f, H / square, W / square]: a block's column, then its row, vary slower
// than the next colour's; and back.
at::Tensor folded(const at::Tensor& x, int64_t p) {
  if (p == 1) return x;
  const int64_t rows = x.size(3) / p, cols = x.size(4) / p;
  return x.reshape({x.size(0), x.size(1), x.size(2), rows, p, cols, p})
      .permute({0, 1, 6, 4, 2, 3, 5})
      .reshape({x.size(0), x.size(1) * p * p, x.size(2), rows, cols});
}

at::Tensor unfolded(const at::Tensor& x, int64_t p) {
  if (p == 1) return x;
  const int64_t colours = x.size(1) / (p * p), rows = x.size(3), cols = x.size(4);
  return x.reshape({x.size(0), colours, p, p, x.size(2), rows, cols})
      .permute({0, 1, 4, 5, 3, 6, 2})
      .reshape({x.size(0), colours, x.size(2), rows * p, cols * p});
}

// [B, C, f, rows, W] -> the chunk's pictures; and back.
at::Tensor to_pictures(const at::Tensor& video) {
  return pictures_of(video.permute({0, 2, 3, 4, 1}).contiguous());
}

at::Tensor to_video(const at::Tensor& pictures, int64_t batch) {
  return frames_of(pictures, batch).permute({0, 4, 1, 2, 3});
}

class AutoencoderKlWan : public Vae {
 public:
  AutoencoderKlWan(WanVaeConfig c, const Builder& b)
      : c_(std::move(c)),
        encoder_(c_, b / "encoder"),
        decoder_(c_, b / "decoder"),
        quant_(b.conv3d("quant_conv", 2 * c_.latent, 2 * c_.latent, {.frames = 1, .kernel = 1})),
        post_quant_(b.conv3d("post_quant_conv", c_.latent, c_.latent, {.frames = 1, .kernel = 1})) {}

  const VaeFacts& facts() const override { return c_.facts; }

  at::Tensor decode(const CallContext& f, const at::Tensor& z) const override {
    return unfolded(decode_folded(f, z), c_.square);
  }
  at::Tensor encode(const CallContext& f, const at::Tensor& x) const override {
    return encode_folded(f, folded(x, c_.square));
  }

  // Tiles of the reference are those of the folded picture, whose blocks fade as one.
  at::Tensor decode_tiled(const at::Tensor& z, const Tiles& t) const override {
    const int64_t stride = static_cast<int64_t>(t.stride), p = c_.square;
    const Tiling tiling{t.size / c_.said_spatial, stride / c_.said_spatial, t.size / p - stride / p,
                        stride / p};
    const auto run = [this](const at::Tensor& tile) {
      return decode_folded(image_call(tile.size(3), tile.size(4), 1, 0), tile);
    };
    if (z.size(3) <= tiling.in && z.size(4) <= tiling.in) return unfolded(run(z), p);
    check(tiling, t);
    const auto y = tiled(z, tiling, run);
    return unfolded(cropped(y, z.size(3) * c_.said_spatial / p, z.size(4) * c_.said_spatial / p), p);
  }

  // Whether a picture needs tiles is asked of its pixels, their sizes then count blocks of the folded
  // picture.
  at::Tensor encode_tiled(const at::Tensor& x, const Tiles& t) const override {
    const int64_t spatial = c_.said_spatial / c_.square, stride = static_cast<int64_t>(t.stride);
    const Tiling tiling{t.size, stride, t.size / spatial - stride / spatial, stride / spatial};
    const auto run = [this](const at::Tensor& tile) {
      const int64_t shrink = c_.levels() - 1;
      return encode_folded(image_call(tile.size(3) >> shrink, tile.size(4) >> shrink, 1, 0), tile);
    };
    const auto whole = folded(x, c_.square);
    if (x.size(3) <= t.size && x.size(4) <= t.size) return run(whole);
    check(tiling, t);
    return cropped(tiled(whole, tiling, run), whole.size(3) / spatial, whole.size(4) / spatial);
  }

 private:
  static at::Tensor cropped(const at::Tensor& x, int64_t rows, int64_t cols) {
    return x.narrow(3, 0, std::min(rows, x.size(3))).narrow(4, 0, std::min(cols, x.size(4)));
  }

  static void check(const Tiling& tiling, const Tiles& t) {
    if (tiling.step > 0 && tiling.blend >= 0) return;
    throw Error(Kind::kUsage, str("tiles of ", t.size, " pixels, ", t.stride,
                                  " from one to the next, are too small for "
                                  "this autoencoder, or have gaps between them"));
  }

  // One latent frame at a time. [B, C, f, h, w] -> [B, channels, F, rows, W]
  at::Tensor decode_folded(const CallContext& f, const at::Tensor& z) const {
    FrameCache cache;
    at::Tensor video;
    std::vector<at::Tensor> latents;  // of the probe alone
    const int64_t batch = z.size(0), frames = z.size(2);
    for (int64_t i = 0, at = 0; i < frames; ++i) {
      const Chunk chunk{f, batch, i == 0, cache};
      const auto latent = post_quant_(to_pictures(z.narrow(2, i, 1)));
      if (f.probes) latents.push_back(to_video(latent, batch));
      const auto made = to_video(decoder_(chunk, latent), batch);
      if (!video.defined()) {
        auto sizes = made.sizes().vec();
        sizes[2] = c_.facts.frames(frames);
        video = at::empty(sizes, made.options(), at::MemoryFormat::Contiguous);
      }
      video.narrow(2, at, made.size(2)).copy_(made);
      at += made.size(2);
    }
    if (f.probes) probe(f, "post_quant_conv", at::cat(latents, 2), Recorder::kWhole);
    return video;
  }

  // [B, channels, F, rows, W] -> moments; frames behind the last whole chunk do not count, as
  // in the reference.
  at::Tensor encode_folded(const CallContext& f, const at::Tensor& x) const {
    FrameCache cache;
    const int64_t batch = x.size(0), chunks = 1 + (x.size(2) - 1) / kChunk;
    std::vector<at::Tensor> moments;
    for (int64_t i = 0; i < chunks; ++i) {
      const Chunk chunk{f, batch, i == 0, cache};
      const auto part = i == 0 ? x.narrow(2, 0, 1) : x.narrow(2, 1 + (i - 1) * kChunk, kChunk);
      moments.push_back(to_video(quant_(encoder_(chunk, to_pictures(part))), batch));
    }
    auto all = at::cat(moments, 2);
    probe(f, "quant_conv", all, Recorder::kWhole);
    return all;
  }

  WanVaeConfig c_;
  wan_vae::Encoder encoder_;
  wan_vae::Decoder decoder_;
  CausalConv3d quant_, post_quant_;
};

std::vector<weights::NameRule> wan_names(const Json& config) {
  const WanVaeConfig c(config);
  return wan_vae_names({c.is_residual, c.levels(), c.layers});
}

VaeFacts wan_facts(const Json& config) {
  return WanVaeConfig(config).facts;
}

std::unique_ptr<Vae> build_wan(const Json& config, const Builder& b) {
  return std::make_unique<AutoencoderKlWan>(WanVaeConfig(config), b);
}

}  // namespace

const VaeFamily kAutoencoderKlWan{.classes = {"AutoencoderKLWan"},
                                  .names = wan_names,
                                  .ignorable = {},
                                  .facts = wan_facts,
                                  .build = build_wan};

}  // namespace atelier::models
