// What Wan's encoder and decoder are made of.
#pragma once
#include <optional>
#include <vector>

#include "models/vae/wan_config.h"

namespace atelier::models::wan_vae {

// One call of the network: some frames that follow those of the call before.
struct Chunk {
  const nn::CallContext& call;
  int64_t batch;
  bool is_first;
  nn::FrameCache& cache;
};

// [B * f, C, rows, W], the form of every tensor here, as a recorder sees it: [B, C, f, rows, W].
void probe(const Chunk& chunk, const std::string& name, const at::Tensor& x);

struct Resnet {
  nn::ChannelNorm norm1, norm2;
  nn::CausalConv3d conv1, conv2;
  std::optional<nn::CausalConv3d> shortcut;
  Resnet(const nn::Builder& b, int64_t in, int64_t out);
  at::Tensor operator()(const Chunk& chunk, const at::Tensor& x) const;
};

// One head over all positions of a frame.
struct FrameAttention {
  nn::ChannelNorm norm;
  nn::Conv2d qkv, out;
  nn::Attention attend;
  FrameAttention(const nn::Builder& b, int64_t channels);
  at::Tensor operator()(const Chunk& chunk, const at::Tensor& x) const;
};

struct Middle {
  Resnet first, second;
  FrameAttention attention;
  Middle(const nn::Builder& b, int64_t channels);
  at::Tensor operator()(const Chunk& chunk, const std::string& side, const at::Tensor& x) const;
};

// Half as many rows and columns, and frames where it has a convolution for them. A video's first frame is a
// chunk of its own and stays.
struct Halve {
  nn::Conv2d space;
  std::optional<nn::CausalConv3d> time;
  Halve(const nn::Builder& b, int64_t channels, bool halves_time);
  at::Tensor operator()(const Chunk& chunk, const at::Tensor& x) const;
};

// And back. The first chunk's frame stays one; the convolution over time does not see it.
struct Twice {
  nn::DoublingConv2d space;
  std::optional<nn::CausalConv3d> time;
  Twice(const nn::Builder& b, int64_t in, int64_t out, bool doubles_time);
  at::Tensor operator()(const Chunk& chunk, const at::Tensor& x) const;
};

// The last norm and convolution.
struct Head {
  nn::ChannelNorm norm;
  nn::CausalConv3d conv;
  Head(const nn::Builder& b, int64_t in, int64_t out);
  at::Tensor operator()(const Chunk& chunk, const std::string& side, const at::Tensor& x) const;
};

struct EncoderLevel {
  std::vector<Resnet> resnets;
  std::vector<FrameAttention> attentions;  // one behind each resnet, or none
  std::optional<Halve> halve;
  std::optional<nn::BlockMean> around;
};

struct Encoder {
  nn::CausalConv3d in;
  std::vector<EncoderLevel> levels;
  std::optional<Middle> middle;
  std::optional<Head> head;
  Encoder(const WanVaeConfig& c, const nn::Builder& b);
  // The folded picture -> [B * f, 2 latent, h, w]
  at::Tensor operator()(const Chunk& chunk, const at::Tensor& x) const;
};

struct DecoderLevel {
  std::vector<Resnet> resnets;
  std::optional<Twice> twice;
  std::optional<nn::BlockRepeat> around;
};

struct Decoder {
  nn::CausalConv3d in;
  std::optional<Middle> middle;
  std::vector<DecoderLevel> levels;  // from the latents
  std::optional<Head> head;
  Decoder(const WanVaeConfig& c, const nn::Builder& b);
  // [B, latent, h, w] -> the folded picture, [B * f, channels, rows, W]
  at::Tensor operator()(const Chunk& chunk, const at::Tensor& x) const;
};

}  // namespace atelier::models::wan_vae
