#include "models/wan/layers.h"

#include <ATen/TensorOperators.h>

#include <array>

namespace atelier::models {

using namespace nn;

WanModulations wan_modulations(const ModulationTable& table, const State& s, int64_t width) {
  const int64_t tokens = s.n.front(), given = s.context->given.defined() ? s.first_frame : 0;
  WanModulations out;
  const auto add = [&](int64_t count, const Modulations& m) {
    out.attention.push_back({count, m.attention});
    out.mlp.push_back({count, m.mlp});
  };
  if (given > 0) add(given, modulations(table, s.context->given, width));
  add(tokens - given, modulations(table, s, width));
  return out;
}

WanBlock::WanBlock(const WanConfig& c, const Builder& b, const ModulationTable& shared, int stream)
    : mod(b.offset_table("mod", shared, {1, 6, c.width})),
      qkv(b.expand("self.qkv", c.width, {c.heads, c.heads, c.heads})),
      out(b.contract("self.out", {c.heads}, c.width)),
      cross_q(b.expand("cross.q", c.width, {c.heads})),
      cross_kv(b.expand("cross.kv", c.width, {c.heads, c.heads})),
      cross_out(b.contract("cross.out", {c.heads}, c.width)),
      up(b.expand("up", c.width, {Dim{c.inner}})),
      down(b.contract("down", {Dim{c.inner}}, c.width)),
      norm_q(b.across_heads_norm("self.norm_q", c.heads, 1e-6)),
      norm_k(b.across_heads_norm("self.norm_k", c.heads, 1e-6)),
      cross_norm_q(b.across_heads_norm("cross.norm_q", c.heads, 1e-6)),
      cross_norm_k(b.across_heads_norm("cross.norm_k", c.heads, 1e-6)),
      cross_norm(b.layer_norm("cross.norm", c.width, 1e-6)),
      attend(b.attention("attn", {stream}, c.heads)),
      cross(b.cross_attention(c.heads)),
      width(c.width),
      head_dim(c.heads.unit) {
  if (c.image_width == 0) return;
  image_kv = b.expand("cross.image_kv", c.width, {c.heads, c.heads});
  norm_image_k = b.across_heads_norm("cross.norm_image_k", c.heads, 1e-6);
  cross_image = b.cross_attention(c.heads);
}

void WanBlock::begin(RequestContext& context, int64_t picture_tokens) const {
  const auto heads = [&](const at::Tensor& t) { return t.unflatten(-1, {-1, head_dim}); };
  const auto keep = [&](const CrossAttention& to, const Linear& project, const AcrossHeadsNorm& norm,
                        const at::Tensor& tokens) {
    const auto kv = project.parts(tokens, 2);
    const std::array norms{&norm};
    const auto k = across_heads(norms, std::span(kv.data(), 1));
    to.begin(context, {.k = heads(k[0]), .v = heads(kv[1])}, {});
  };
  const int64_t text = context.prompt.size(0) - picture_tokens;
  keep(cross, cross_kv, cross_norm_k, context.prompt.narrow(0, picture_tokens, text));
  // Without pictures the text stands in their place too.
  const int64_t seen = picture_tokens > 0 ? picture_tokens : text;
  if (image_kv) keep(cross_image, image_kv, norm_image_k, context.prompt.narrow(0, 0, seen));
}

at::Tensor WanBlock::attended(const CallContext& f, const Activation& x, const Rope& rope) const {
  const auto t = qkv.parts(x, 3);
  const std::array norms{&norm_q, &norm_k};
  const auto qk = across_heads(norms, std::span(t.data(), 2));
  const auto heads = [&](const at::Tensor& one) { return one.unflatten(-1, {-1, head_dim}); };
  return out(attend(f, {{.q = heads(qk[0]), .k = heads(qk[1]), .v = heads(t[2]), .rope = &rope}}));
}

at::Tensor WanBlock::cross_attended(const State& s, const at::Tensor& x) const {
  const std::array<at::Tensor, 1> projected{cross_q(cross_norm(x))};
  const std::array norms{&cross_norm_q};
  const auto q = across_heads(norms, projected)[0].unflatten(-1, {-1, head_dim});
  auto all = cross(s, {.q = q});
  if (image_kv) all = all + cross_image(s, {.q = q});
  return cross_out(all);
}

// No gate stands at the cross attention.
void WanBlock::operator()(const CallContext& f, const State& s, const Rope& rope, const at::Tensor& x) const {
  const auto m = wan_modulations(mod, s, width);
  gated_(x, m.attention, attended(f, norm(x, m.attention), rope));
  x.add_(cross_attended(s, x));
  gated_(x, m.mlp, down(gelu_tanh(up, norm(x, m.mlp))));
}

}  // namespace atelier::models
