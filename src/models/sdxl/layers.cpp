#include "models/sdxl/layers.h"

#include <ATen/TensorOperators.h>

#include "base/error.h"

namespace atelier::models {

using namespace nn;

namespace {

constexpr double kTransformerGroupEps = 1e-6, kLayerEps = 1e-5;

// Adds numbers per picture and channel, [B, C].
Unbiased plus(const Unbiased& y, const at::Tensor& numbers) {
  if (y.bias.defined() && numbers.size(0) == 1) return {y.x, y.bias + numbers[0]};
  return {y.x + numbers.unsqueeze(-1).unsqueeze(-1), y.bias};
}

}  // namespace

UNetResnet::UNetResnet(const UNetConfig& c, const Builder& b, int64_t in, int64_t out, double scale)
    : norm1_(b.group_norm("norm1", c.groups, in, c.eps)),
      norm2_(b.group_norm("norm2", c.groups, out, c.eps)),
      conv1_(b.conv2d("conv1", in, out, kSameSize)),
      conv2_(b.conv2d("conv2", out, out, kSameSize)),
      time_(b.table("time_emb_proj", c.time_width, out)),
      scale_(scale) {
  if (in != out) shortcut_ = b.conv2d("conv_shortcut", in, out, kPointwise);
}

at::Tensor UNetResnet::operator()(const State& s, const at::Tensor& x) const {
  const auto timed = plus(conv1_.unbiased(norm1_.silu({x, {}})), chunks(time_, s, 1)[0]);
  const auto y = conv2_.unbiased(norm2_.silu(timed));
  const auto out = sum(y, shortcut_ ? shortcut_->unbiased(x) : Unbiased{x, {}});
  return scale_ == 1 ? out : out / scale_;
}

UNetTransformerBlock::UNetTransformerBlock(const Builder& b, Dim heads, int64_t text_width)
    : head_dim_(heads.unit) {
  const int64_t width = heads.size();
  const Dim inner{4 * width};
  norm1_ = b.layer_norm("norm1", width, kLayerEps);
  norm2_ = b.layer_norm("norm2", width, kLayerEps);
  norm3_ = b.layer_norm("norm3", width, kLayerEps);
  const auto self = b / "attn1", text = b / "attn2", mlp = b / "ff" / "net";
  qkv_ = self.expand("qkv", width, {heads, heads, heads}, Bias::kNo);
  out_ = self.contract("to_out.0", {heads}, width);
  attend_ = self.attention("attention", {0}, heads);
  text_q_ = text.expand("to_q", width, {heads}, Bias::kNo);
  text_kv_ = text.expand("kv", text_width, {heads, heads}, Bias::kNo);
  text_out_ = text.contract("to_out.0", {heads}, width);
  attend_text_ = text.cross_attention(heads);
  up_ = mlp.expand("0.proj", width, {inner, inner});  // values, then gates
  down_ = mlp.contract("2", {inner}, width);
}

void UNetTransformerBlock::begin(RequestContext& context) const {
  const auto kv = text_kv_(context.prompt).unflatten(-1, {2, -1, head_dim_});
  attend_text_.begin(context, {.k = kv.select(2, 0), .v = kv.select(2, 1)}, {});
}

at::Tensor UNetTransformerBlock::operator()(const CallContext& f, const State& s, at::Tensor x) const {
  const auto t = qkv_(norm1_(x)).unflatten(-1, {3, -1, head_dim_});
  x = x + out_(attend_(f, {Projected{t.select(2, 0), t.select(2, 1), t.select(2, 2)}}));
  const auto q = text_q_(norm2_(x)).unflatten(-1, {-1, head_dim_});
  x = x + text_out_(attend_text_(s, {.q = q}));
  return x + down_(up_.gated_gelu(norm3_(x), GatedGelu::kErfSecond));
}

UNetTransformer::UNetTransformer(const UNetConfig& c, const Builder& b, const UNetLevel& level,
                                 int64_t blocks)
    : norm_(b.group_norm("norm", c.groups, level.channels, kTransformerGroupEps)) {
  const int64_t inner = level.heads.size();
  if (c.projects_tokens) {
    in_ = b.linear("proj_in", level.channels, inner);
    out_ = b.linear("proj_out", inner, level.channels);
  } else {
    conv_in_ = b.conv2d("proj_in", level.channels, inner, kPointwise);
    conv_out_ = b.conv2d("proj_out", inner, level.channels, kPointwise);
  }
  for (int64_t i = 0; i < blocks; ++i)
    blocks_.emplace_back(b / "transformer_blocks" / i, level.heads, c.text_width);
}

void UNetTransformer::begin(RequestContext& context) const {
  for (const auto& block : blocks_) block.begin(context);
}

at::Tensor UNetTransformer::enter(const at::Tensor& x) const {
  const auto normal = norm_(x);
  return in_ ? in_(pixels_of(normal)) : pixels_of(conv_in_(normal));
}

at::Tensor UNetTransformer::leave(const PictureCall& at, const at::Tensor& tokens) const {
  if (out_) return picture_of(out_(tokens), at.rows, at.cols);
  return conv_out_(picture_of(tokens, at.rows, at.cols));
}

at::Tensor UNetTransformer::operator()(const PictureCall& at, const State& s, const at::Tensor& x,
                                       const std::string& name) const {
  auto tokens = enter(x);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    tokens = blocks_[i](at.call, s, tokens);
    probe(at.call, str(name, ".transformer_blocks.", i), tokens, 0);
  }
  return x + leave(at, tokens);
}

}  // namespace atelier::models
