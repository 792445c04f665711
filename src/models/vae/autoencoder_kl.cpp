// The KL autoencoder of latent diffusion. Rombach et al. (arXiv 2112.10752); upstream: diffusers
// autoencoder_kl.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "models/config.h"
#include "models/vae/autoencoders.h"
#include "models/vae/tiling.h"

namespace atelier::models {
namespace {

using namespace nn;

struct KlConfig {
  std::vector<int64_t> channels;
  int64_t layers, groups, latent, pixels;
  bool quant, post_quant, attention;
  VaeFacts facts;

  explicit KlConfig(const Json& j) {
    const ConfigReader read(j, "vae/config.json");
    channels = read.integers("block_out_channels", {64});
    layers = read.layers("layers_per_block", 1);
    groups = read.positive("norm_num_groups", 32);
    latent = read.positive("latent_channels", 4);
    pixels = read.positive("out_channels", 3);
    quant = read.boolean("use_quant_conv", true);
    post_quant = read.boolean("use_post_quant_conv", true);
    attention = read.boolean("mid_block_add_attention", true);
    if (read.text("act_fn", "silu") != "silu" || read.positive("in_channels", 3) != pixels ||
        channels.empty()) {
      throw Error(
          Kind::kCheckpoint,
          "vae/config.json: expected act_fn silu, in_channels equal to out_channels and block_out_channels");
    }
    for (const int64_t c : channels) {
      if (c < 1 || c % groups != 0) {
        throw Error(Kind::kCheckpoint,
                    str("vae/config.json: ", c, " channels do not divide into ", groups, " groups"));
      }
    }
    facts = {latent,
             int64_t{1} << (channels.size() - 1),
             read.above_zero("scaling_factor", 0.18215),
             read.number("shift_factor", 0.0),
             {},
             {},
             {},
             channels.front()};
    const int64_t side = read.positive("sample_size", 512);
    facts.tiles = {side, 0.75 * static_cast<double>(side)};
    facts.mean = read.numbers("latents_mean");
    facts.deviation = read.numbers("latents_std");
    if (facts.mean.empty() || facts.deviation.empty()) {  // only both count
      facts.mean.clear(), facts.deviation.clear();
    } else if (std::ssize(facts.mean) != latent || std::ssize(facts.deviation) != latent) {
      throw Error(Kind::kCheckpoint,
                  str("vae/config.json: latents_mean and latents_std must have ", latent, " numbers"));
    }
    for (const double deviation : facts.deviation)
      if (deviation == 0) throw Error(Kind::kCheckpoint, "vae/config.json: a number of latents_std is zero");
  }
};

constexpr double kEps = 1e-6;
constexpr ConvShape kSame{};  // 3x3, same size

struct Resnet {
  GroupNorm norm1, norm2;
  Conv2d conv1, conv2;
  std::optional<Conv2d> shortcut;
  Resnet(const KlConfig& c, const Builder& b, int64_t in, int64_t out)
      : norm1(b.group_norm("norm1", c.groups, in, kEps)),
        norm2(b.group_norm("norm2", c.groups, out, kEps)),
        conv1(b.conv2d("conv1", in, out, kSame)),
        conv2(b.conv2d("conv2", out, out, kSame)) {
    if (in != out) shortcut = b.conv2d("conv_shortcut", in, out, kPointwise);
  }
  at::Tensor operator()(const at::Tensor& x) const {
    const auto y = conv2.unbiased(norm2.silu(conv1.unbiased(norm1.silu({x, {}}))));
    return sum(y, shortcut ? shortcut->unbiased(x) : Unbiased{x, {}});
  }
};

// One head over all positions.
struct MidAttention {
  GroupNorm norm;
  Linear qkv, out;
  Attention attend;
  MidAttention(const KlConfig& c, const Builder& b, int64_t channels)
      : norm(b.group_norm("group_norm", c.groups, channels, kEps)),
        qkv(b.linear("qkv", channels, 3 * channels)),
        out(b.linear("to_out.0", channels, channels)),
        attend(b.attention("attn", {0}, Dim{1, channels})) {}
  at::Tensor operator()(const CallContext& f, const at::Tensor& x) const {
    const auto tokens = norm(x).flatten(2).permute({2, 0, 1});  // [positions, B, C]
    const auto t = qkv(tokens).unflatten(-1, {3, 1, -1});
    const auto o = out(attend(f, {Projected{t.select(2, 0), t.select(2, 1), t.select(2, 2)}}));
    return x + o.permute({1, 2, 0}).reshape(x.sizes());
  }
};

struct Mid {
  Resnet first, second;
  std::optional<MidAttention> attention;
  Mid(const KlConfig& c, const Builder& b, int64_t channels)
      : first(c, b / "resnets" / 0, channels, channels), second(c, b / "resnets" / 1, channels, channels) {
    if (c.attention) attention.emplace(c, b / "attentions" / 0, channels);
  }
  at::Tensor operator()(const CallContext& f, const std::string& name, const at::Tensor& in) const {
    auto x = first(in);
    probe(f, name + ".resnets.0", x, Recorder::kWhole);
    if (attention) {
      x = (*attention)(f, x);
      probe(f, name + ".attentions.0", x, Recorder::kWhole);
    }
    x = second(x);
    probe(f, name + ".resnets.1", x, Recorder::kWhole);
    probe(f, name, x, Recorder::kWhole);
    return x;
  }
};

// One resolution: resnets, then a convolution that halves (encoder) or doubles (decoder) it.
struct Level {
  std::vector<Resnet> resnets;
  std::optional<Conv2d> halve;
  std::optional<DoublingConv2d> twice;
};

class AutoencoderKl : public Vae {
 public:
  AutoencoderKl(const KlConfig& c, const Builder& b)
      : c_(c), encoder_(c, b / "encoder"), decoder_(c, b / "decoder") {
    if (c.quant) quant_ = b.conv2d("quant_conv", 2 * c.latent, 2 * c.latent, kPointwise);
    if (c.post_quant) post_quant_ = b.conv2d("post_quant_conv", c.latent, c.latent, kPointwise);
  }
  const VaeFacts& facts() const override { return c_.facts; }

  at::Tensor decode(const CallContext& f, const at::Tensor& z) const override {
    auto x = z;
    if (post_quant_) {
      x = (*post_quant_)(x);
      probe(f, "post_quant_conv", x, Recorder::kWhole);
    }
    return decoder_(f, x);
  }

  at::Tensor encode(const CallContext& f, const at::Tensor& x) const override {
    auto y = encoder_(f, x);
    if (quant_) {
      y = (*quant_)(y);
      probe(f, "quant_conv", y, Recorder::kWhole);
    }
    return y;
  }

  at::Tensor decode_tiled(const at::Tensor& z, const Tiles& tiles) const override {
    const int64_t side = tiles.size / c_.facts.spatial;
    const auto run = [this](const at::Tensor& t) {
      return decode(image_call(t.size(2), t.size(3), 1, 0), t);
    };
    return z.size(2) <= side && z.size(3) <= side ? run(z) : tiled(z, tiling(side, tiles.size, tiles), run);
  }

  at::Tensor encode_tiled(const at::Tensor& x, const Tiles& tiles) const override {
    const int64_t s = c_.facts.spatial;
    const auto run = [&](const at::Tensor& t) {
      return encode(image_call(t.size(2) / s, t.size(3) / s, 1, 0), t);
    };
    return x.size(2) <= tiles.size && x.size(3) <= tiles.size
               ? run(x)
               : tiled(x, tiling(tiles.size, tiles.size / s, tiles), run);
  }

 private:
  // Of tiles with these sides before and behind the network; upstream: tile_overlap_factor.
  static Tiling tiling(int64_t in, int64_t out, const Tiles& tiles) {
    const double overlap = 1 - tiles.stride / static_cast<double>(tiles.size);
    const auto share = [](int64_t side, double of) {
      return static_cast<int64_t>(static_cast<double>(side) * of);
    };
    const int64_t blend = share(out, overlap);
    return {in, std::max<int64_t>(1, share(in, 1 - overlap)), blend, out - blend};
  }

  struct Encoder {
    Conv2d in, out;
    std::vector<Level> levels;
    Mid mid;
    GroupNorm norm;
    Encoder(const KlConfig& c, const Builder& b)
        : in(b.conv2d("conv_in", c.pixels, c.channels.front(), kSame)),
          out(b.conv2d("conv_out", c.channels.back(), 2 * c.latent, kSame)),
          mid(c, b / "mid_block", c.channels.back()),
          norm(b.group_norm("conv_norm_out", c.groups, c.channels.back(), kEps)) {
      int64_t channels = c.channels.front();
      for (size_t i = 0; i < c.channels.size(); ++i) {
        const auto at = b / "down_blocks" / static_cast<int64_t>(i);
        auto& level = levels.emplace_back();
        for (int64_t k = 0; k < c.layers; ++k) {
          level.resnets.emplace_back(c, at / "resnets" / k, channels, c.channels[i]);
          channels = c.channels[i];
        }
        if (i + 1 < c.channels.size())
          level.halve = (at / "downsamplers" / 0).conv2d("conv", channels, channels, kHalving);
      }
    }
    at::Tensor operator()(const CallContext& f, const at::Tensor& pixels) const {
      auto x = in(pixels);
      probe(f, "encoder.conv_in", x, Recorder::kWhole);
      for (size_t i = 0; i < levels.size(); ++i) {
        for (const auto& r : levels[i].resnets) x = r(x);
        if (levels[i].halve) x = (*levels[i].halve)(x);
        probe(f, str("encoder.down_blocks.", i), x, Recorder::kWhole);
      }
      x = norm(mid(f, "encoder.mid_block", x));
      probe(f, "encoder.conv_norm_out", x, Recorder::kWhole);
      x = at::silu(x);
      probe(f, "encoder.conv_act", x, Recorder::kWhole);
      x = out(x);
      for (const char* name : {"encoder.conv_out", "encoder"}) probe(f, name, x, Recorder::kWhole);
      return x;
    }
  };

  struct Decoder {
    Conv2d in, out;
    Mid mid;
    std::vector<Level> levels;
    GroupNorm norm;
    Decoder(const KlConfig& c, const Builder& b)
        : in(b.conv2d("conv_in", c.latent, c.channels.back(), kSame)),
          out(b.conv2d("conv_out", c.channels.front(), c.pixels, kSame)),
          mid(c, b / "mid_block", c.channels.back()),
          norm(b.group_norm("conv_norm_out", c.groups, c.channels.front(), kEps)) {
      int64_t channels = c.channels.back();
      for (size_t i = 0; i < c.channels.size(); ++i) {
        const auto at = b / "up_blocks" / static_cast<int64_t>(i);
        const int64_t wanted = c.channels[c.channels.size() - 1 - i];
        auto& level = levels.emplace_back();
        for (int64_t k = 0; k < c.layers + 1; ++k) {
          level.resnets.emplace_back(c, at / "resnets" / k, channels, wanted);
          channels = wanted;
        }
        if (i + 1 < c.channels.size())
          level.twice.emplace((at / "upsamplers" / 0).conv2d("conv", channels, channels, kSame));
      }
    }
    at::Tensor operator()(const CallContext& f, const at::Tensor& z) const {
      auto x = in(z);
      probe(f, "decoder.conv_in", x, Recorder::kWhole);
      x = mid(f, "decoder.mid_block", x);
      for (size_t i = 0; i < levels.size(); ++i) {
        for (const auto& r : levels[i].resnets) x = r(x);
        if (levels[i].twice) x = (*levels[i].twice)(x);
        probe(f, str("decoder.up_blocks.", i), x, Recorder::kWhole);
      }
      if (f.probes) {
        const auto normed = norm(x);
        probe(f, "decoder.conv_norm_out", normed, Recorder::kWhole);
        probe(f, "decoder.conv_act", at::silu(normed), Recorder::kWhole);
      }
      x = out(norm.silu({x, {}}));
      for (const char* name : {"decoder.conv_out", "decoder"}) probe(f, name, x, Recorder::kWhole);
      return x;
    }
  };

  KlConfig c_;
  Encoder encoder_;
  Decoder decoder_;
  std::optional<Conv2d> quant_, post_quant_;
};

// The names of CompVis' latent-diffusion, which single files carry: the decoder's levels are counted from the
// picture there, from the latents in diffusers.
void add_original_names(const KlConfig& c, std::vector<weights::NameRule>& all) {
  const auto levels = std::ssize(c.channels);
  for (const std::string side : {"encoder", "decoder"}) {
    const bool is_encoder = side == "encoder";
    const std::string mid = side + ".mid_block.", old_mid = side + ".mid.", attn = old_mid + "attn_1.";
    for (int64_t i = 0; i < levels; ++i) {
      const std::string to = str(side, is_encoder ? ".down_blocks." : ".up_blocks.", i, ".");
      const std::string from =
          str(side, is_encoder ? ".down." : ".up.", is_encoder ? i : levels - 1 - i, ".");
      all.push_back({to + "resnets.{}.conv_shortcut", {{from + "block.{}.nin_shortcut"}}});
      all.push_back({to + "resnets.{}", {{from + "block.{}"}}});
      all.push_back({to + (is_encoder ? "downsamplers.0" : "upsamplers.0"),
                     {{from + (is_encoder ? "downsample" : "upsample")}}});
    }
    all.push_back({mid + "resnets.0", {{old_mid + "block_1"}}});
    all.push_back({mid + "resnets.1", {{old_mid + "block_2"}}});
    all.push_back({mid + "attentions.0.group_norm", {{attn + "norm"}}});
    all.push_back({mid + "attentions.0.qkv", {{attn + "q"}, {attn + "k"}, {attn + "v"}}});
    all.push_back({mid + "attentions.0.to_out.0", {{attn + "proj_out"}}});
    all.push_back({side + ".conv_norm_out", {{side + ".norm_out"}}});
  }
}

std::vector<weights::NameRule> kl_names(const Json& config) {
  std::vector<weights::NameRule> all;
  for (const std::string side : {"encoder", "decoder"}) {
    const std::string at = side + ".mid_block.attentions.0.";
    all.push_back({at + "qkv", {{at + "to_q"}, {at + "to_k"}, {at + "to_v"}}});
    // before diffusers 0.18
    all.push_back({at + "qkv", {{at + "query"}, {at + "key"}, {at + "value"}}});
    all.push_back({side, {{side}}});  // of all spellings these names are the ones that are written
    all.push_back({at + "to_out.0", {{at + "proj_attn"}}});
  }
  add_original_names(KlConfig(config), all);
  return all;
}

VaeFacts kl_facts(const Json& config) {
  return KlConfig(config).facts;
}

std::unique_ptr<Vae> build_kl(const Json& config, const Builder& b) {
  return std::make_unique<AutoencoderKl>(KlConfig(config), b);
}

}  // namespace

const VaeFamily kAutoencoderKl{.classes = {"AutoencoderKL"},
                               .names = kl_names,
                               .ignorable = {"loss.*", "model_ema.*"},
                               .facts = kl_facts,
                               .build = build_kl};

}  // namespace atelier::models
