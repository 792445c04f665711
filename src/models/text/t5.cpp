// T5's encoder (v1.1 and umT5, mT5). Raffel et al. (arXiv 1910.10683); upstream: transformers modeling_t5.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/blocked_encoder.h"
#include "models/config.h"
#include "models/text/activation.h"
#include "models/text/encoders.h"
#include "models/text/padding.h"
#include "nn/sdpa.h"

namespace atelier::models {
namespace {

using namespace nn;

struct T5Config {
  int64_t width, key, inner, layers, heads, vocabulary, buckets, distance;
  double eps;
  bool gated, bias_in_each;
  ActivationFunction activation = nullptr;  // null: the gated tanh form of GELU, which is one product

  explicit T5Config(const Json& j) {
    const ConfigReader read(j, "text_encoder config.json");
    width = read.positive("d_model", 512);
    key = read.positive("d_kv", 64);
    inner = read.positive("d_ff", 2048);
    layers = read.layers("num_layers", 6);
    heads = read.positive("num_heads", 8);
    vocabulary = read.positive("vocab_size", 32128);
    buckets = read.positive("relative_attention_num_buckets", 32);
    distance = read.positive("relative_attention_max_distance", 128);
    eps = read.above_zero("layer_norm_epsilon", 1e-6);
    // Where the key is missing, T5's and the newer models' configs differ.
    const std::string classes = j.at("architectures").dump();
    const bool is_newer = classes.find("MT5") != std::string::npos;  // mT5 and umT5
    const std::string form = read.text("feed_forward_proj", is_newer ? "gated-gelu" : "relu");
    const bool is_gated_form = form.starts_with("gated-");
    const std::string usual = form == "gated-gelu" ? "gelu_new" : is_gated_form ? form.substr(6) : form;
    // Both are also written out, and then count.
    gated = read.boolean("is_gated_act", is_gated_form);
    const std::string name = read.text("dense_act_fn", usual);
    const auto named = find_activation(name, "T5: feed_forward_proj or dense_act_fn");
    if (!gated || name != "gelu_new") activation = named;
    if (buckets < 4 || distance <= buckets / 4) {
      throw Error(Kind::kCheckpoint,
                  str("T5: relative_attention_num_buckets must be 4 or more, found ", buckets,
                      ", and relative_attention_max_distance more than a quarter of it, found ", distance));
    }
    bias_in_each = classes.find("UMT5") != std::string::npos;
  }
};

struct T5Layer {
  RmsNorm norm1, norm2;
  Linear qkv, out, gate_up, up, down;
  at::Tensor relative;  // [buckets, heads]; undefined: the first layer's serves
  ActivationFunction activation;
  T5Layer(const T5Config& c, const Builder& b, bool own_bias) {
    const auto a = b / "layer" / 0, f = b / "layer" / 1;
    const auto s = a / "SelfAttention", d = f / "DenseReluDense";
    norm1 = a.rms_norm("layer_norm", c.width, c.eps), norm2 = f.rms_norm("layer_norm", c.width, c.eps);
    const int64_t inside = c.heads * c.key;
    qkv = s.linear("qkv", c.width, 3 * inside, Bias::kNo), out = s.linear("o", inside, c.width, Bias::kNo);
    if (own_bias) relative = s.buffer("relative_attention_bias.weight", {c.buckets, c.heads});
    if (c.gated) gate_up = d.linear("gate_up", c.width, 2 * c.inner, Bias::kNo);
    if (!c.gated) up = d.linear("wi", c.width, c.inner, Bias::kNo);
    activation = c.activation;
    down = d.linear("wo", c.inner, c.width, Bias::kNo);
  }
  at::Tensor inner(const at::Tensor& x) const {
    if (!activation) return gate_up.gated_gelu(x, GatedGelu::kTanhFirst);
    if (!gate_up) return activation(up(x));
    const auto halves = gate_up.parts(x, 2);
    return activation(halves[0]) * halves[1];
  }
};

class T5 : public TextEncoder, public BlockedEncoder {
 public:
  T5(const T5Config& c, const Builder& b)
      : c_(c),
        tokens_(b.buffer("embed.weight", {c.vocabulary, c.width})),
        final_((b / "encoder").rms_norm("final_layer_norm", c.width, c.eps)) {
    for (int i = 0; i < c.layers; ++i) {
      layers_.emplace_back(c, b.block(i) / "encoder" / "block" / i, i == 0 || c.bias_in_each);
      b.finish_block(i);
    }
  }
  int blocks() const override { return static_cast<int>(layers_.size()); }

  EncoderOutput encode(const at::Tensor& ids, const at::Tensor& mask) const override {
    auto x = at::embedding(tokens_, ids);
    const auto bucket = buckets(ids.size(1), ids.options());
    EncoderOutput e{.hidden = {x}};
    at::Tensor bias;
    int block = 0;
    for (const auto& layer : layers_) {
      reach(block++);
      if (layer.relative.defined()) bias = scores_bias(layer.relative, bucket, mask);
      const auto attended = attention(layer, layer.norm1(x), bias);
      x = x.clone();  // the layer before keeps its own
      layer.out.add_to_(x, attended);
      layer.down.add_to_(x, layer.inner(layer.norm2(x)));
      e.hidden.push_back(x);
    }
    e.states = final_(x);
    e.hidden.back() = e.states;
    return e;
  }

  at::Tensor final_norm(const at::Tensor& states) const override { return final_(states); }

 private:
  // Half the buckets for each direction; of these half are exact, the others grow logarithmically to
  // `distance`.
  at::Tensor buckets(int64_t n, const at::TensorOptions& options) const {
    const auto i = at::arange(n, options);
    const auto relative = i.unsqueeze(0) - i.unsqueeze(1);  // key - query
    const int64_t half = c_.buckets / 2, exact = half / 2;
    const auto far = relative.abs();
    const auto scale = static_cast<double>(half - exact) /
                       std::log(static_cast<double>(c_.distance) / static_cast<double>(exact));
    const auto grown =
        exact + (at::log(far.to(at::kFloat) / static_cast<double>(exact)) * scale).to(at::kLong);
    const auto large = at::minimum(grown, at::full_like(far, half - 1));
    return at::where(relative > 0, half, 0) + at::where(far < exact, far, large);
  }

  at::Tensor scores_bias(const at::Tensor& table, const at::Tensor& bucket, const at::Tensor& mask) const {
    // [1, heads, n, n], rows contiguous
    auto bias = table.t().index_select(1, bucket.flatten()).view({1, c_.heads, bucket.size(0), -1});
    return mask.defined() ? bias + hidden_padding(mask, bias) : bias;
  }

  at::Tensor attention(const T5Layer& l, const at::Tensor& x, const at::Tensor& bias) const {
    const auto split = [&](const at::Tensor& t) {
      return t.unflatten(-1, {c_.heads, c_.key}).transpose(1, 2);
    };
    const auto t = l.qkv.parts(x, 3);
    const auto o = attend(split(t[0]), split(t[1]), split(t[2]), bias.to(x.scalar_type()), 1.0);
    return o.transpose(1, 2).flatten(2);
  }

  T5Config c_;
  at::Tensor tokens_;
  RmsNorm final_;
  std::vector<T5Layer> layers_;
};

// transformers' names, of which rules that change nothing come first so that they are the ones that are
// written; then those of llama.cpp's GGUF files, and of Wan's own umT5 (wan/modules/t5.py).
std::vector<weights::NameRule> t5_names() {
  const std::string block = "encoder.block.{}.", at = block + "layer.0.SelfAttention.",
                    in = block + "layer.1.DenseReluDense.", ggml = "enc.blk.{}.", wan = "blocks.{}.";
  return {{"embed.weight", {{"shared.weight"}}},  // one tensor, stored under either name or under both
          {"embed.weight", {{"encoder.embed_tokens.weight"}}},
          {at + "qkv", {{at + "q"}, {at + "k"}, {at + "v"}}},
          {in + "gate_up", {{in + "wi_0"}, {in + "wi_1"}}},
          {"encoder", {{"encoder"}}},
          {"embed", {{"token_embd"}}},
          {"encoder.final_layer_norm", {{"enc.output_norm"}}},
          {block + "layer.0.layer_norm", {{ggml + "attn_norm"}}},
          {block + "layer.1.layer_norm", {{ggml + "ffn_norm"}}},
          {at + "qkv", {{ggml + "attn_q"}, {ggml + "attn_k"}, {ggml + "attn_v"}}},
          {at + "o", {{ggml + "attn_o"}}},
          {at + "relative_attention_bias", {{ggml + "attn_rel_b"}}},
          {in + "gate_up", {{ggml + "ffn_gate"}, {ggml + "ffn_up"}}},
          {in + "wi", {{ggml + "ffn_up"}}},
          {in + "wo", {{ggml + "ffn_down"}}},
          {"embed", {{"token_embedding"}}},
          {"encoder.final_layer_norm", {{"norm"}}},
          {block + "layer.0.layer_norm", {{wan + "norm1"}}},
          {block + "layer.1.layer_norm", {{wan + "norm2"}}},
          {at + "qkv", {{wan + "attn.q"}, {wan + "attn.k"}, {wan + "attn.v"}}},
          {at + "o", {{wan + "attn.o"}}},
          {at + "relative_attention_bias", {{wan + "pos_embedding.embedding"}}},
          {in + "gate_up", {{wan + "ffn.gate.0"}, {wan + "ffn.fc1"}}},
          {in + "wo", {{wan + "ffn.fc2"}}}};
}

EncoderWidths t5_widths(const Json& config) {
  return {.states = T5Config(config).width};
}

std::unique_ptr<TextEncoder> build_t5(const Json& config, const Builder& b) {
  return std::make_unique<T5>(T5Config(config), b);
}

}  // namespace

// Whole models too: their encoder is what is read.
const EncoderFamily kT5{
    .classes = {"T5EncoderModel", "UMT5EncoderModel", "MT5EncoderModel", "T5Model",
                "T5ForConditionalGeneration", "UMT5Model", "UMT5ForConditionalGeneration", "MT5Model",
                "MT5ForConditionalGeneration"},
    .names = t5_names,
    .ignorable = {"encoder.embed_tokens.weight", "shared.weight", "decoder.*", "lm_head.weight",
                  "spiece_model", "dec.*", "output.weight", "logit_scale"},
    .build = build_t5,
    .widths = t5_widths,
    .has_blocks = true};

}  // namespace atelier::models
