#include "models/vae/wan_layers.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "base/error.h"

namespace atelier::models::wan_vae {

using namespace nn;

namespace {

constexpr Conv3dShape kPoint3d{.frames = 1, .kernel = 1};
constexpr Conv3dShape kTime{.kernel = 1}, kHalfTime{.kernel = 1, .frame_stride = 2};

// Two frames of each, whose numbers lie side by side in its channels.
at::Tensor frames_out_of_channels(const at::Tensor& x, int64_t batch) {
  const auto f = frames_of(x, batch);
  const int64_t frames = f.size(1), rows = f.size(2), cols = f.size(3), channels = f.size(4) / 2;
  return pictures_of(f.view({batch, frames, rows, cols, 2, channels})
                         .permute({0, 1, 4, 2, 3, 5})
                         .reshape({batch, 2 * frames, rows, cols, channels}));
}

at::Tensor without_first_frames(const at::Tensor& x, int64_t batch, int64_t count) {
  const auto f = frames_of(x, batch);
  return pictures_of(f.narrow(1, count, f.size(1) - count).contiguous());
}

}  // namespace

void probe(const Chunk& c, const std::string& name, const at::Tensor& x) {
  if (c.call.probes)
    nn::probe(c.call, name, frames_of(x, c.batch).permute({0, 4, 1, 2, 3}).contiguous(), Recorder::kWhole);
}

Resnet::Resnet(const Builder& b, int64_t in, int64_t out)
    : norm1(b.channel_norm("norm1.gamma", {in, 1, 1, 1})),
      norm2(b.channel_norm("norm2.gamma", {out, 1, 1, 1})),
      conv1(b.conv3d("conv1", in, out, {})),
      conv2(b.conv3d("conv2", out, out, {})) {
  if (in != out) shortcut = b.conv3d("conv_shortcut", in, out, kPoint3d);
}

at::Tensor Resnet::operator()(const Chunk& c, const at::Tensor& x) const {
  auto &past1 = c.cache.next(), &past2 = c.cache.next();
  const auto y = conv1.unbiased_of_silu(norm1, {x, {}}, c.batch, past1);
  return sum(conv2.unbiased_of_silu(norm2, y, c.batch, past2),
             shortcut ? shortcut->unbiased(x) : Unbiased{x, {}});
}

FrameAttention::FrameAttention(const Builder& b, int64_t channels)
    : norm(b.channel_norm("norm.gamma", {channels, 1, 1})),
      qkv(b.conv2d("to_qkv", channels, 3 * channels, kPointwise)),
      out(b.conv2d("proj", channels, channels, kPointwise)),
      attend(b.attention("attn", {0}, Dim{1, channels})) {}

at::Tensor FrameAttention::operator()(const Chunk& c, const at::Tensor& x) const {
  const auto tokens = qkv(norm(x)).flatten(2).permute({2, 0, 1});  // [positions, B * f, 3 C]
  const auto t = tokens.unflatten(-1, {3, 1, x.size(1)}).contiguous();
  const auto o = attend(c.call, {Projected{t.select(2, 0), t.select(2, 1), t.select(2, 2)}});
  return sum(out.unbiased(o.permute({1, 2, 0}).reshape(x.sizes())), {x, {}});
}

Middle::Middle(const Builder& b, int64_t channels)
    : first(b / "resnets" / 0, channels, channels),
      second(b / "resnets" / 1, channels, channels),
      attention(b / "attentions" / 0, channels) {}

at::Tensor Middle::operator()(const Chunk& c, const std::string& side, const at::Tensor& in) const {
  const auto name = side + ".mid_block";
  auto x = first(c, in);
  probe(c, name + ".resnets.0", x);
  x = attention(c, x);
  probe(c, name + ".attentions.0", x);
  x = second(c, x);
  probe(c, name + ".resnets.1", x);
  probe(c, name, x);
  return x;
}

Halve::Halve(const Builder& b, int64_t channels, bool halves_time)
    : space((b / "resample").conv2d("1", channels, channels, kHalving)) {
  if (halves_time) time = b.conv3d("time_conv", channels, channels, kHalfTime);
}

at::Tensor Halve::operator()(const Chunk& c, const at::Tensor& x) const {
  auto small = space(x);
  if (!time) return small;
  auto& past = c.cache.next();
  if (!c.is_first) return (*time)(small, c.batch, past);
  time->remember(small, c.batch, past);
  return small;
}

Twice::Twice(const Builder& b, int64_t in, int64_t out, bool doubles_time)
    : space((b / "resample").conv2d("1", in, out, {})) {
  if (doubles_time) time = b.conv3d("time_conv", in, 2 * in, kTime);
}

at::Tensor Twice::operator()(const Chunk& c, const at::Tensor& x) const {
  if (!time) return space(x);
  auto& past = c.cache.next();
  return space(c.is_first ? x : frames_out_of_channels((*time)(x, c.batch, past), c.batch));
}

Head::Head(const Builder& b, int64_t in, int64_t out)
    : norm(b.channel_norm("norm_out.gamma", {in, 1, 1, 1})), conv(b.conv3d("conv_out", in, out, {})) {}

at::Tensor Head::operator()(const Chunk& c, const std::string& side, const at::Tensor& x) const {
  if (c.call.probes) {
    probe(c, side + ".norm_out", norm(x));
    probe(c, side + ".nonlinearity", norm.silu({x, {}}));
  }
  auto y = conv.of_silu(norm, {x, {}}, c.batch, c.cache.next());
  probe(c, side + ".conv_out", y);
  probe(c, side, y);
  return y;
}

// Modules of 2.1's encoder are counted through all levels; 2.2's levels have resnets and a downsampler each.
Encoder::Encoder(const WanVaeConfig& c, const Builder& b)
    : in(b.conv3d("conv_in", c.channels(), c.encoder_width, {})) {
  const auto blocks = b / "down_blocks";
  int64_t channels = c.encoder_width, counted = 0;
  for (int64_t i = 0; i < c.levels(); ++i) {
    auto& level = levels.emplace_back();
    const int64_t wanted = c.encoder_width * c.multipliers[static_cast<size_t>(i)];
    const bool attends = !c.is_residual && std::count(c.attention_scales.begin(), c.attention_scales.end(),
                                                      1.0 / static_cast<double>(int64_t{1} << i)) > 0;
    for (int64_t k = 0; k < c.layers; ++k) {
      level.resnets.emplace_back(c.is_residual ? blocks / i / "resnets" / k : blocks / counted++, channels,
                                 wanted);
      channels = wanted;
      if (attends) level.attentions.emplace_back(blocks / counted++, channels);
    }
    const bool halves_time = c.changes_time(i);
    if (!c.is_last(i))
      level.halve.emplace(c.is_residual ? blocks / i / "downsampler" : blocks / counted++, channels,
                          halves_time);
    if (c.is_residual) level.around = {channels, halves_time ? 2 : 1, c.is_last(i) ? 1 : 2};
  }
  middle.emplace(b / "mid_block", channels);
  head.emplace(b, channels, 2 * c.latent);
}

at::Tensor Encoder::operator()(const Chunk& c, const at::Tensor& pixels) const {
  c.cache.rewind();
  auto x = in(pixels, c.batch, c.cache.next());
  probe(c, "encoder.conv_in", x);
  int64_t counted = 0;
  const auto tell = [&] { probe(c, str("encoder.down_blocks.", counted++), x); };
  for (const auto& level : levels) {
    const bool is_whole = level.around.has_value();  // one module
    const auto before = x;
    for (size_t k = 0; k < level.resnets.size(); ++k) {
      x = level.resnets[k](c, x);
      if (!is_whole) tell();
      if (level.attentions.empty()) continue;
      x = level.attentions[k](c, x);
      tell();
    }
    if (level.halve) x = (*level.halve)(c, x);
    if (is_whole) x.add_((*level.around)(before, c.batch));
    if (is_whole || level.halve) tell();
  }
  return (*head)(c, "encoder", (*middle)(c, "encoder", x));
}

Decoder::Decoder(const WanVaeConfig& c, const Builder& b)
    : in(b.conv3d("conv_in", c.latent, c.decoder_width * c.multipliers.back(), {})) {
  int64_t channels = c.decoder_width * c.multipliers.back();
  middle.emplace(b / "mid_block", channels);
  for (int64_t i = 0; i < c.levels(); ++i) {
    const int64_t from_picture = c.levels() - 1 - i;
    const auto at = b / "up_blocks" / i;
    const int64_t wanted = c.decoder_width * c.multipliers[static_cast<size_t>(from_picture)];
    auto& level = levels.emplace_back();
    for (int64_t k = 0; k < c.layers + 1; ++k) {
      level.resnets.emplace_back(at / "resnets" / k, channels, wanted);
      channels = wanted;
    }
    if (from_picture == 0) break;
    const bool doubles_time = c.changes_time(from_picture - 1);
    if (c.is_residual) {
      level.twice.emplace(at / "upsampler", channels, channels, doubles_time);
      level.around = {channels, doubles_time ? 2 : 1};
    } else {
      level.twice.emplace(at / "upsamplers" / 0, channels, channels / 2, doubles_time);
      channels /= 2;
    }
  }
  head.emplace(b, channels, c.channels());
}

at::Tensor Decoder::operator()(const Chunk& c, const at::Tensor& z) const {
  c.cache.rewind();
  auto x = in(z, c.batch, c.cache.next());
  probe(c, "decoder.conv_in", x);
  x = (*middle)(c, "decoder", x);
  for (size_t i = 0; i < levels.size(); ++i) {
    const auto& level = levels[i];
    const auto before = x;
    for (const auto& resnet : level.resnets) x = resnet(c, x);
    if (level.twice) x = (*level.twice)(c, x);
    if (level.around) {
      auto full = (*level.around)(before, c.batch);
      if (c.is_first && level.around->time > 1)
        full = without_first_frames(full, c.batch, level.around->time - 1);
      x.add_(full);
    }
    probe(c, str("decoder.up_blocks.", i), x);
  }
  return (*head)(c, "decoder", x);
}

}  // namespace atelier::models::wan_vae
