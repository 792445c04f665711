#include "pipeline/image_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/tensor.h>

#include <cstring>
#include <optional>

namespace atelier::pipeline {

namespace {

// For the channels of [B, C, (f,) h, w].
at::Tensor by_channel(const std::vector<double>& numbers, const at::Tensor& like) {
  std::vector<int64_t> sizes(static_cast<size_t>(like.dim()), 1);
  sizes[1] = -1;
  return at::tensor(numbers, like.options()).view(sizes);
}

// What samplers work on -> what the decoder takes, [B, C, (f,) h, w].
at::Tensor to_decode(const at::Tensor& latents, const models::VaeFacts& facts) {
  if (facts.deviation.empty()) return latents / facts.scale + facts.shift;
  return latents * by_channel(facts.deviation, latents) / facts.scale + by_channel(facts.mean, latents);
}

// And back.
at::Tensor from_encode(const at::Tensor& z, const models::VaeFacts& facts) {
  if (facts.deviation.empty()) return (z - facts.shift) * facts.scale;
  return (z - by_channel(facts.mean, z)) * facts.scale / by_channel(facts.deviation, z);
}

// Of the rows, while one picture or batch is coded.
struct Share {
  int parts = 1, rank = 0;
  std::optional<parallel::ParallelContext::AloneWithPictures> alone;
  Share(const parallel::ParallelContext& context, CodedBy by) {
    if (by == CodedBy::kThisRank) {
      alone.emplace(context);
    } else {
      parts = context.picture_parts(), rank = context.picture_rank();
    }
  }
};

}  // namespace

ImageStage::ImageStage(const ModelRepo& model, const parallel::ParallelContext& parallel_context,
                       const DecodeOptions& options)
    : parallel_context_(parallel_context), options_(options) {
  const auto store = model.weights(model.component("vae"));
  memory_ = component_memory(options.residency);
  const nn::Builder b(*store, parallel_context.picture(), *memory_,
                      at::TensorOptions(options.type).device(options.device));
  vae_ = models::find_vae(model.vae()).build(model.vae(), b);
  store->check();
  memory_->release();
}

at::Tensor ImageStage::decode(const at::Tensor& latents, CodedBy by, ActivationRecorder* probes) const {
  return decode(latents, by, options_.tiling, probes);
}

at::Tensor ImageStage::glimpse(const at::Tensor& latents, CodedBy finally) const {
  return decode(latents, CodedBy::kThisRank, options_.tiling || finally == CodedBy::kAllRanks, nullptr);
}

at::Tensor ImageStage::decode(const at::Tensor& latents, CodedBy by, bool in_tiles,
                              ActivationRecorder* probes) const {
  const nn::InPlace here(*memory_);
  const Share share(parallel_context_, by);
  const auto& facts = vae_->facts();
  const auto z = to_decode(latents, facts).to(options_.type);
  const auto whole = models::image_call(z.size(-2), z.size(-1), share.parts, share.rank);
  const Range rows = Partition{z.size(-2), share.parts}[share.rank];
  auto out = sliced(z, [&](const at::Tensor& part) {
    if (share.parts > 1) return vae_->decode(whole, part.narrow(-2, rows.begin, rows.size).contiguous());
    return in_tiles ? vae_->decode_tiled(part, facts.tiles) : vae_->decode(whole, part);
  });
  if (share.parts > 1) out = parallel_context_.gather_rows(out, z.size(-2));
  if (facts.is_clamped) out.clamp_(-1, 1);
  auto image = (out.to(at::kFloat) * 0.5 + 0.5).clamp(0, 1);
  if (probes) {
    probes->whole("vae.in", z);
    probes->whole("vae.out", out);
    probes->whole("image", image);
  }
  return image;
}

at::Tensor ImageStage::sliced(const at::Tensor& batch,
                              const std::function<at::Tensor(const at::Tensor&)>& run) const {
  if (!options_.slicing) return run(batch);
  std::vector<at::Tensor> each;
  for (int64_t i = 0; i < batch.size(0); ++i) each.push_back(run(batch.narrow(0, i, 1)));
  return at::cat(each);
}

at::Tensor ImageStage::encode(const at::Tensor& given, CodedBy by) const {
  const nn::InPlace here(*memory_);
  const Share share(parallel_context_, by);
  const auto& facts = vae_->facts();
  const int64_t rows = given.size(-2) / facts.spatial, cols = given.size(-1) / facts.spatial;
  const auto x = given.to(options_.device).to(options_.type).contiguous();
  const auto whole = models::image_call(rows, cols, share.parts, share.rank);
  const Range mine = Partition{rows, share.parts}[share.rank];
  auto moments = sliced(x, [&](const at::Tensor& part) {
    if (share.parts > 1) {
      return vae_->encode(
          whole, part.narrow(-2, mine.begin * facts.spatial, mine.size * facts.spatial).contiguous());
    }
    return options_.tiling ? vae_->encode_tiled(part, facts.tiles) : vae_->encode(whole, part);
  });
  if (share.parts > 1) moments = parallel_context_.gather_rows(moments, rows);
  return moments.to(at::kFloat);
}

at::Tensor ImageStage::encode_mode(const at::Tensor& x, CodedBy by) const {
  return from_encode(encode(x, by).chunk(2, 1)[0], vae_->facts());
}

at::Tensor from_bytes(const at::Tensor& pixels) {
  return pixels.movedim(-1, 1).to(at::kFloat) / 255 * 2 - 1;
}

at::Tensor sampled_latents(const at::Tensor& moments, const at::Tensor& noise,
                           const models::VaeFacts& facts) {
  const auto parts = moments.chunk(2, 1);
  return from_encode(parts[0] + at::exp(0.5 * parts[1].clamp(-30, 20)) * noise, facts);
}

namespace {

// bytes [H, W, 3], contiguous, on the CPU.
media::Image image_of(const at::Tensor& bytes) {
  media::Image image{static_cast<int>(bytes.size(1)), static_cast<int>(bytes.size(0)), {}};
  image.rgb.resize(static_cast<size_t>(bytes.numel()));
  std::memcpy(image.rgb.data(), bytes.const_data_ptr(), image.rgb.size());
  return image;
}

}  // namespace

std::vector<media::Artifact> to_artifacts(const at::Tensor& images, double fps) {
  const auto bytes = (images * 255).round().to(at::kByte).movedim(1, -1).contiguous().to(at::kCPU);
  std::vector<media::Artifact> out;
  for (int64_t i = 0; i < bytes.size(0); ++i) {
    if (bytes.dim() == 4) {
      out.emplace_back(image_of(bytes[i]));
      continue;
    }
    media::Video video{{}, fps};
    for (int64_t f = 0; f < bytes.size(1); ++f) video.frames.push_back(image_of(bytes[i][f]));
    if (video.frames.size() == 1) {
      out.emplace_back(std::move(video.frames.front()));
    } else {
      out.emplace_back(std::move(video));
    }
  }
  return out;
}

}  // namespace atelier::pipeline
