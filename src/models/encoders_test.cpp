// Text encoders: T5's buckets read back from attention, CLIP's end of text, causality, masks, norms, configs.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/text_encoder.h"
#include "nn/testing.h"

namespace atelier::models {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const at::TensorOptions kWide(at::kDouble), kIds(at::kLong);

std::unique_ptr<TextEncoder> build(const Json& config, const weights::WeightStore& store) {
  static nn::SingleRank alone;
  return find_encoder(config).build(config, alone.builder(store, at::TensorOptions(at::kDouble)));
}

Json t5_config(int64_t width, const char* architecture = "T5EncoderModel") {
  return {{"architectures", {architecture}},
          {"d_model", width},
          {"d_kv", width},
          {"d_ff", 4},
          {"num_layers", 2},
          {"num_heads", 1},
          {"vocab_size", width},
          {"feed_forward_proj", "gated-gelu"}};
}

// [tokens, tokens]: the bucket of key j as query i sees it. Every weight of the first layer is zero or the
// identity, so that it adds the softmax of the position bias alone, scaled by the norm of one-hot embeddings.
at::Tensor read_buckets(int64_t count, int64_t far, int64_t tokens) {
  const std::string layer = "encoder.block.0.layer.0.";
  const auto one = at::eye(tokens, kWide);
  const nn::PlantedStore store(
      {{"embed.weight", one},
       {layer + "layer_norm.weight", at::ones({tokens}, kWide)},
       {layer + "SelfAttention.qkv.weight", at::cat({at::zeros({2 * tokens, tokens}, kWide), one})},
       {layer + "SelfAttention.o.weight", one},
       {layer + "SelfAttention.relative_attention_bias.weight",
        at::linspace(0.0, static_cast<double>(count - 1) / 8, count, kWide).view({count, 1})}});
  Json config = t5_config(tokens);
  config["relative_attention_num_buckets"] = count;
  config["relative_attention_max_distance"] = far;
  const auto e = build(config, store)->encode(at::arange(tokens, kIds).view({1, tokens}), {});
  const auto weights = e.hidden[1][0] - one;
  const auto own = weights.diagonal().unsqueeze(1);  // of bucket 0, whose bias is 0
  return (8 * (weights / own).log()).round().to(at::kLong);
}

TEST(T5, BucketsAreThoseOfThePaper) {
  const auto buckets = read_buckets(32, 128, 300);
  // {distance, bucket of a key before the query}; a key behind it has 16 more
  const int64_t expected[][2] = {{0, 0},   {1, 1},   {7, 7},   {8, 8},   {11, 8},   {12, 9},  {15, 9},
                                 {16, 10}, {22, 10}, {23, 11}, {31, 11}, {32, 12},  {45, 12}, {46, 13},
                                 {63, 13}, {64, 14}, {90, 14}, {91, 15}, {128, 15}, {290, 15}};
  for (const auto& [distance, bucket] : expected) {
    EXPECT_EQ(buckets[295][295 - distance].item<int64_t>(), bucket) << "distance " << distance;
    if (distance > 0) {
      EXPECT_EQ(buckets[5][5 + distance].item<int64_t>(), 16 + bucket) << "distance " << distance;
    }
  }
}

TEST(T5, BucketsFollowTheConfig) {
  const auto buckets = read_buckets(8, 20, 60);  // four each way: two exact, then 2..6 and beyond
  EXPECT_EQ(buckets[50][49].item<int64_t>(), 1);
  EXPECT_EQ(buckets[50][44].item<int64_t>(), 2);
  EXPECT_EQ(buckets[50][43].item<int64_t>(), 3);
  EXPECT_EQ(buckets[0][59].item<int64_t>(), 7);
}

TEST(T5, MaskedTokensDoNotReachTheOthers) {
  const auto store = weights::WeightStore::dummy(3);
  const auto encoder = build(t5_config(24), *store);
  const auto ids = at::tensor({5, 6, 7, 1, 0, 0}, kIds).view({1, 6}),
             others = at::tensor({5, 6, 7, 1, 9, 3}, kIds).view({1, 6});
  const auto mask = at::tensor({1, 1, 1, 1, 0, 0}, kIds).view({1, 6});
  const auto first = [](const EncoderOutput& e) { return e.states.narrow(1, 0, 4); };
  EXPECT_LT(distance(first(encoder->encode(others, mask)), first(encoder->encode(ids, mask))), 1e-13);
  EXPECT_LT(distance(first(encoder->encode(ids, mask)), encoder->encode(ids.narrow(1, 0, 4), {}).states),
            1e-12);
  EXPECT_GT(distance(first(encoder->encode(others, {})), first(encoder->encode(ids, {}))), 1e-3);
}

TEST(T5, OnlySomeHaveABiasOfTheirOwnInEachLayer) {
  const auto read = [](const char* architecture) {
    const auto store = weights::WeightStore::dummy(3);
    build(t5_config(24, architecture), *store);
    int tables = 0;
    for (const auto& a : store->manifest()) tables += has(a.name, "relative_attention_bias") ? 1 : 0;
    return tables;
  };
  EXPECT_EQ(read("T5EncoderModel"), 1);
  EXPECT_EQ(read("MT5EncoderModel"), 1);
  EXPECT_EQ(read("UMT5EncoderModel"), 2);
}

TEST(T5, TakesTheActivationThatItsConfigNames) {
  const auto ids = at::tensor({5, 6, 7, 1}, kIds).view({1, 4});
  const auto states = [&](const Json& form, const char* architecture = "T5EncoderModel") {
    Json config = t5_config(24, architecture);
    config["feed_forward_proj"] = form;
    const auto store = weights::WeightStore::dummy(3);
    return build(config, *store)->encode(ids, {}).states;
  };
  EXPECT_LT(distance(states("gated-gelu_new"), states("gated-gelu")), 1e-13);
  for (const char* other : {"gated-relu", "gated-silu", "relu", "gelu", "gelu_new"})
    EXPECT_GT(distance(states(other), states("gated-gelu")), 1e-3) << other;
  EXPECT_GT(distance(states("gelu"), states("gelu_new")), 1e-6) << "by the error function, or its tanh form";
  EXPECT_TRUE(at::equal(states(nullptr), states("relu"))) << "T5's default";
  EXPECT_TRUE(at::equal(states(nullptr, "MT5EncoderModel"), states("gated-gelu", "MT5EncoderModel")));
  const auto written = [&](const char* key, const Json& value) {
    Json config = t5_config(24);
    config[key] = value;
    const auto store = weights::WeightStore::dummy(3);
    return build(config, *store)->encode(ids, {}).states;
  };
  EXPECT_TRUE(at::equal(written("dense_act_fn", "relu"), states("gated-relu")))
      << "what is written out counts";
  EXPECT_TRUE(at::equal(written("is_gated_act", false), states("gelu_new")));
}

TEST(T5, HidesPaddingInHalfTypesToo) {
  static nn::SingleRank alone;
  const auto ids = at::tensor({5, 6, 7, 1, 0, 0}, kIds).view({1, 6});
  const auto mask = at::tensor({1, 1, 1, 1, 0, 0}, kIds).view({1, 6});
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const auto store = weights::WeightStore::dummy(3);
    const auto t5 =
        find_encoder(t5_config(24)).build(t5_config(24), alone.builder(*store, at::TensorOptions(type)));
    const auto whole = t5->encode(ids, mask).states.narrow(1, 0, 4).to(at::kFloat);
    const auto alone_there = t5->encode(ids.narrow(1, 0, 4), {}).states.to(at::kFloat);
    EXPECT_LT(distance(whole, alone_there), 0.02) << type;
  }
}

Json bert_config() {
  return {{"architectures", {"BertModel"}}, {"hidden_size", 24},        {"intermediate_size", 40},
          {"num_hidden_layers", 3},         {"num_attention_heads", 3}, {"vocab_size", 50},
          {"max_position_embeddings", 12},  {"type_vocab_size", 2},     {"hidden_act", "gelu"}};
}

TEST(Bert, MaskedTokensDoNotReachTheOthers) {
  const auto store = weights::WeightStore::dummy(5);
  const auto bert = build(bert_config(), *store);
  const auto ids = at::tensor({2, 6, 7, 3, 0, 0}, kIds).view({1, 6}),
             others = at::tensor({2, 6, 7, 3, 9, 4}, kIds).view({1, 6});
  const auto mask = at::tensor({1, 1, 1, 1, 0, 0}, kIds).view({1, 6});
  const auto first = [](const EncoderOutput& e) { return e.states.narrow(1, 0, 4); };
  EXPECT_LT(distance(first(bert->encode(others, mask)), first(bert->encode(ids, mask))), 1e-13);
  EXPECT_LT(distance(first(bert->encode(ids, mask)), bert->encode(ids.narrow(1, 0, 4), {}).states), 1e-12);
  EXPECT_GT(distance(first(bert->encode(others, {})), first(bert->encode(ids, {}))), 1e-3);
}

TEST(Bert, EveryLayerEndsInANorm) {
  const auto store = weights::WeightStore::dummy(5);  // weights of norms are ones, biases small
  const auto e = build(bert_config(), *store)->encode(at::tensor({2, 6, 7, 3}, kIds).view({1, 4}), {});
  ASSERT_EQ(e.hidden.size(), 4u);
  for (const auto& states : e.hidden) EXPECT_NEAR(states.var(-1, false).mean().item<double>(), 1, 0.1);
  EXPECT_TRUE(at::equal(e.hidden.back(), e.states));
  EXPECT_EQ(e.pooled.sizes(), (at::IntArrayRef{1, 24}));
  EXPECT_LE(e.pooled.abs().max().item<double>(), 1);
}

TEST(Bert, PoolsOnlyWhereThereAreWeightsForIt) {
  const auto store = weights::WeightStore::dummy(5, {"pooler.*"});
  EXPECT_FALSE(build(bert_config(), *store)->encode(at::ones({1, 2}, kIds), {}).pooled.defined());
}

Json clip_config(int64_t eos, const char* architecture = "CLIPTextModel") {
  return {{"architectures", {architecture}}, {"hidden_size", 16},        {"intermediate_size", 32},
          {"num_hidden_layers", 2},          {"num_attention_heads", 2}, {"vocab_size", 60},
          {"max_position_embeddings", 8},    {"projection_dim", 12},     {"eos_token_id", eos}};
}

// Which position's state the pooled output is.
std::vector<int64_t> pooled_positions(int64_t eos, const at::Tensor& ids) {
  const auto store = weights::WeightStore::dummy(4);
  const auto e = build(clip_config(eos), *store)->encode(ids, {});
  std::vector<int64_t> positions;
  for (int64_t b = 0; b < ids.size(0); ++b) {
    int64_t found = -1;
    for (int64_t t = 0; t < ids.size(1); ++t) {
      if (at::equal(e.pooled[b], e.states[b][t])) found = t;
    }
    positions.push_back(found);
  }
  return positions;
}

TEST(Clip, PoolsTheFirstEndOfText) {
  const auto ids =
      at::tensor({50, 4, 9, 51, 51, 51, 51, 51, 50, 51, 7, 51, 51, 51, 51, 51}, kIds).view({2, 8});
  EXPECT_EQ(pooled_positions(51, ids), (std::vector<int64_t>{3, 1}));
}

TEST(Clip, PoolsTheLargestIdWhereTheConfigIsOfTheOldKind) {
  const auto ids = at::tensor({50, 4, 9, 51, 2, 2, 2, 2, 50, 59, 2, 51, 51, 51, 51, 51}, kIds).view({2, 8});
  EXPECT_EQ(pooled_positions(2, ids), (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(pooled_positions(51, ids), (std::vector<int64_t>{3, 3}));
}

TEST(Clip, NoTokenSeesALaterOne) {
  const auto store = weights::WeightStore::dummy(4);
  const auto clip = build(clip_config(51), *store);
  const auto a = at::tensor({50, 4, 9, 51, 3}, kIds).view({1, 5}),
             b = at::tensor({50, 4, 9, 8, 51}, kIds).view({1, 5});
  const auto x = clip->encode(a, {}).states, y = clip->encode(b, {}).states;
  EXPECT_LT(distance(x.narrow(1, 0, 3), y.narrow(1, 0, 3)), 1e-13);
  EXPECT_GT(distance(x.narrow(1, 3, 1), y.narrow(1, 3, 1)), 1e-2);
}

TEST(Clip, OnlyTheKindWithAProjectionProjects) {
  const auto store = weights::WeightStore::dummy(4);
  const auto ids = at::tensor({50, 51}, kIds).view({1, 2});
  EXPECT_FALSE(build(clip_config(51), *store)->encode(ids, {}).projected.defined());
  const auto e = build(clip_config(51, "CLIPTextModelWithProjection"), *store)->encode(ids, {});
  EXPECT_EQ(e.projected.sizes(), (at::IntArrayRef{1, 12}));
  EXPECT_EQ(e.hidden.size(), 3u);
}

TEST(Bert, RefusesMoreTokensThanItHasPositions) {
  const auto store = weights::WeightStore::dummy(5);
  const auto bert = build(bert_config(), *store);
  const auto message = error_of(Kind::kUsage, [&] { bert->encode(at::zeros({1, 13}, kIds), {}); });
  EXPECT_TRUE(has(message, "13 tokens") && has(message, "12 positions")) << message;
}

TEST(Clip, RefusesMoreTokensThanItHasPositions) {
  const auto store = weights::WeightStore::dummy(4);
  const auto clip = build(clip_config(51), *store);
  const auto message = error_of(Kind::kUsage, [&] { clip->encode(at::zeros({1, 9}, kIds), {}); });
  EXPECT_TRUE(has(message, "9 tokens") && has(message, "8 positions")) << message;
}

TEST(EncoderConfigs, WrongOnesAreNamed) {
  const auto refused = [](const Json& config) {
    return error_of(Kind::kCheckpoint, [&] { build(config, *weights::WeightStore::dummy(1)); });
  };
  Json clip = clip_config(51), t5 = t5_config(8);
  clip["hidden_size"] = "wide";
  EXPECT_TRUE(has(refused(clip), "hidden_size must be a whole number, found \"wide\"")) << refused(clip);
  clip["hidden_size"] = -4;
  EXPECT_TRUE(has(refused(clip), "hidden_size must be a positive number")) << refused(clip);
  clip["hidden_size"] = 15;
  EXPECT_TRUE(has(refused(clip), "15 channels over 2 heads")) << refused(clip);
  clip["hidden_size"] = 16, clip["hidden_act"] = "swish";
  EXPECT_TRUE(has(refused(clip), "hidden_act")) << refused(clip);
  for (const Json& eps : {Json(0), Json(-1e-5), Json("NaN")}) {
    clip = clip_config(51), clip["layer_norm_eps"] = eps;
    EXPECT_TRUE(has(refused(clip), "layer_norm_eps must be ")) << refused(clip);
  }
  t5["feed_forward_proj"] = "gated-swash";
  EXPECT_TRUE(has(refused(t5), "feed_forward_proj")) << refused(t5);
  t5 = t5_config(8), t5["relative_attention_num_buckets"] = 3;
  EXPECT_TRUE(has(refused(t5), "relative_attention_num_buckets")) << refused(t5);
  t5 = t5_config(8), t5["relative_attention_max_distance"] = 8;
  EXPECT_TRUE(has(refused(t5), "relative_attention_max_distance")) << refused(t5);
  Json bert = bert_config();
  bert["hidden_act"] = "swash";
  EXPECT_TRUE(has(refused(bert), "hidden_act names the activation swash; known are gelu")) << refused(bert);
  bert = bert_config(), bert["position_embedding_type"] = "relative_key";
  EXPECT_TRUE(has(refused(bert), "position_embedding_type")) << refused(bert);
  bert = bert_config(), bert["num_attention_heads"] = 5;
  EXPECT_TRUE(has(refused(bert), "24 channels over 5 heads")) << refused(bert);
  for (const Json& nothing : {Json::object(), Json::array(), Json("text"), Json{{"architectures", 3}},
                              Json{{"architectures", {"LlamaModel"}}}}) {
    EXPECT_TRUE(has(refused(nothing), "known are CLIPTextModel")) << nothing << refused(nothing);
  }
}

}  // namespace
}  // namespace atelier::models
