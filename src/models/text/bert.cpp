// BERT's encoder. Devlin et al. (arXiv 1810.04805); upstream: transformers modeling_bert.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/tanh.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"
#include "models/text/activation.h"
#include "models/text/encoders.h"
#include "models/text/padding.h"
#include "nn/sdpa.h"

namespace atelier::models {
namespace {

using namespace nn;

struct BertConfig {
  int64_t width, inner, layers, heads, vocabulary, positions, kinds;
  ActivationFunction activation;
  double eps;

  explicit BertConfig(const Json& j) {
    const ConfigReader read(j, "text encoder config.json");
    width = read.positive("hidden_size", 768);
    inner = read.positive("intermediate_size", 3072);
    layers = read.layers("num_hidden_layers", 12);
    heads = read.positive("num_attention_heads", 12);
    vocabulary = read.positive("vocab_size", 30522);
    positions = read.positive("max_position_embeddings", 512);
    kinds = read.positive("type_vocab_size", 2);
    activation = find_activation(read.text("hidden_act", "gelu"), "BERT: hidden_act");
    eps = read.above_zero("layer_norm_eps", 1e-12);
    if (width % heads != 0)
      throw Error(Kind::kCheckpoint, str("BERT: ", width, " channels over ", heads, " heads"));
    const auto positions_are = read.text("position_embedding_type", "absolute");
    if (positions_are != "absolute") {
      throw Error(Kind::kCheckpoint,
                  str("BERT: position_embedding_type must be absolute, found ", positions_are));
    }
    if (read.boolean("is_decoder", false))
      throw Error(Kind::kCheckpoint, "BERT: is_decoder must be false: texts are encoded as a whole");
  }
};

struct BertLayer {
  Linear qkv, out, up, down;
  LayerNorm norm1, norm2;
  BertLayer(const BertConfig& c, const Builder& b) {
    const auto attention = b / "attention";
    qkv = (attention / "self").linear("qkv", c.width, 3 * c.width);
    out = (attention / "output").linear("dense", c.width, c.width);
    norm1 = (attention / "output").layer_norm("LayerNorm", c.width, c.eps);
    up = (b / "intermediate").linear("dense", c.width, c.inner);
    down = (b / "output").linear("dense", c.inner, c.width);
    norm2 = (b / "output").layer_norm("LayerNorm", c.width, c.eps);
  }
};

class Bert : public TextEncoder {
 public:
  Bert(const BertConfig& c, const Builder& b) : c_(c) {
    const auto e = b / "embeddings";
    words_ = e.buffer("word_embeddings.weight", {c.vocabulary, c.width});
    positions_ = e.buffer("position_embeddings.weight", {c.positions, c.width});
    kinds_ = e.buffer("token_type_embeddings.weight", {c.kinds, c.width});
    norm_ = e.layer_norm("LayerNorm", c.width, c.eps);
    for (int64_t i = 0; i < c.layers; ++i) layers_.emplace_back(c, b / "encoder" / "layer" / i);
    if (b.has("pooler.dense.weight")) pooler_ = (b / "pooler").linear("dense", c.width, c.width);
  }

  EncoderOutput encode(const at::Tensor& ids, const at::Tensor& mask) const override {
    const int64_t n = ids.size(1);
    if (n > c_.positions) {
      throw Error(Kind::kUsage,
                  str("a text of ", n, " tokens for an encoder with ", c_.positions, " positions"));
    }
    // All tokens are of the first kind: a prompt is one sentence.
    auto x = norm_(at::embedding(words_, ids) + kinds_.select(0, 0) + positions_.narrow(0, 0, n));
    const auto bias = hidden_padding(mask, x);
    EncoderOutput e{.hidden = {x}};
    for (const auto& layer : layers_) {
      x = layer.norm1(attention(layer, x, bias) + x);
      x = layer.norm2(layer.down(c_.activation(layer.up(x))) + x);
      e.hidden.push_back(x);
    }
    e.states = x;
    if (pooler_) e.pooled = at::tanh(pooler_(x.select(1, 0)));
    return e;
  }

  // Every layer ends in a norm of its own; there is none behind the last.
  at::Tensor final_norm(const at::Tensor& states) const override { return states; }

 private:
  at::Tensor attention(const BertLayer& l, const at::Tensor& x, const at::Tensor& bias) const {
    const int64_t d = c_.width / c_.heads;
    const auto split = [&](const at::Tensor& t) { return t.unflatten(-1, {c_.heads, d}).transpose(1, 2); };
    const auto t = l.qkv.parts(x, 3);
    const auto o =
        attend(split(t[0]), split(t[1]), split(t[2]), bias, 1.0 / std::sqrt(static_cast<double>(d)));
    return l.out(o.transpose(1, 2).flatten(2));
  }

  BertConfig c_;
  at::Tensor words_, positions_, kinds_;
  LayerNorm norm_;
  std::vector<BertLayer> layers_;
  Linear pooler_;
};

std::vector<weights::NameRule> bert_names() {  // "bert." stands before those of checkpoints with a head
  const std::string at = "encoder.layer.{}.attention.self.", headed = "bert." + at;
  return {{"embeddings", {{"bert.embeddings"}}},
          {"encoder", {{"bert.encoder"}}},
          {"pooler", {{"bert.pooler"}}},
          {at + "qkv", {{at + "query"}, {at + "key"}, {at + "value"}}},
          {at + "qkv", {{headed + "query"}, {headed + "key"}, {headed + "value"}}}};
}

std::unique_ptr<TextEncoder> build_bert(const Json& config, const Builder& b) {
  return std::make_unique<Bert>(BertConfig(config), b);
}

}  // namespace

const EncoderFamily kBert{.classes = {"BertModel"},
                          .names = bert_names,
                          .ignorable = {"*position_ids", "*token_type_ids", "cls.*"},
                          .build = build_bert};

}  // namespace atelier::models
