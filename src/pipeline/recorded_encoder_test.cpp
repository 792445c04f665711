// Texts through an encoder that replays what it recorded, against the same encoder without recordings.
#include "pipeline/recorded_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "nn/testing.h"
#include "pipeline/fake_graphs.h"

namespace atelier::pipeline {
namespace {

// Two layers: the ids, hidden where the mask is 0; then twice that.
struct TwoLayers : models::TextEncoder {
  models::EncoderOutput encode(const at::Tensor& ids, const at::Tensor& mask) const override {
    const auto x = (mask.defined() ? ids * mask : ids).to(at::kFloat).unsqueeze(-1);
    const auto y = x + x;
    return {.states = y + 1, .pooled = y.sum(1), .hidden = {x, y}};
  }
  at::Tensor final_norm(const at::Tensor& states) const override { return states + 1; }
};

at::Tensor ids_of(int64_t tokens, int64_t first) {
  return at::arange(first, first + tokens, at::TensorOptions(at::kLong)).unsqueeze(0);
}

struct Encoders {
  FakeGraphs* fake = new FakeGraphs;
  RecordedEncoder recorded{std::make_unique<TwoLayers>(), at::kCPU, std::unique_ptr<GraphBackend>(fake)};
  RecordedEncoder plain{std::make_unique<TwoLayers>(), at::kCPU, nullptr};

  void expect_same(const at::Tensor& ids, const at::Tensor& mask = {}, int layer = 0) {
    const auto got = recorded.encode(ids, mask, layer), want = plain.encode(ids, mask, layer);
    EXPECT_TRUE(got.text.states.equal(want.text.states));
    EXPECT_TRUE(got.text.pooled.equal(want.text.pooled));
    EXPECT_FALSE(got.text.projected.defined());
    EXPECT_TRUE(got.is_finite);
    EXPECT_EQ(fake->fault, "");
  }
};

TEST(RecordedEncoder, ReplaysForOtherTextsOfTheSameLength) {
  Encoders e;
  for (int64_t first = 0; first < 5; ++first) e.expect_same(ids_of(6, first));
  EXPECT_EQ(e.fake->recordings, 1);
  EXPECT_EQ(e.fake->replays, 4);
}

TEST(RecordedEncoder, ResultsOutliveTheNextText) {
  Encoders e;
  e.recorded.encode(ids_of(3, 0), {}, 0);
  const auto first = e.recorded.encode(ids_of(3, 10), {}, 0);
  e.recorded.encode(ids_of(3, 20), {}, 0);
  EXPECT_TRUE(first.text.states.equal(e.plain.encode(ids_of(3, 10), {}, 0).text.states));
}

TEST(RecordedEncoder, MasksAndLayersAreRecordedApart) {
  Encoders e;
  for (int64_t first = 0; first < 3; ++first) {
    auto mask = at::ones({1, 4}, at::TensorOptions(at::kLong));
    mask[0][3] = first % 2;
    e.expect_same(ids_of(4, first));
    e.expect_same(ids_of(4, first), mask);
    e.expect_same(ids_of(4, first), {}, -2);
  }
  EXPECT_EQ(e.fake->recordings, 3);
}

TEST(RecordedEncoder, NamesALayerThatThereIsNot) {
  Encoders e;
  EXPECT_TRUE(e.plain.encode(ids_of(4, 1), {}, -2).text.states.defined());
  const auto message = nn::error_of(Kind::kUsage, [&] { e.plain.encode(ids_of(4, 1), {}, -3); });
  EXPECT_TRUE(nn::has(message, "3 layers from the end") && nn::has(message, "has 1 layers")) << message;
}

TEST(RecordedEncoder, StartsAnewWhereThereAreTooManyKinds) {
  Encoders e;
  for (int round = 0; round < 2; ++round) {
    for (int64_t tokens = 1; tokens < 7; ++tokens) {
      for (int64_t first = 0; first < 3; ++first) e.expect_same(ids_of(tokens, first));
    }
  }
}

struct Infinite : TwoLayers {
  models::EncoderOutput encode(const at::Tensor& ids, const at::Tensor& mask) const override {
    auto e = TwoLayers::encode(ids, mask);
    e.pooled = e.pooled / at::full({1}, 0.0F);
    return e;
  }
};

TEST(RecordedEncoder, TellsNumbersOutOfRange) {
  RecordedEncoder plain(std::make_unique<Infinite>(), at::kCPU, nullptr);
  EXPECT_FALSE(plain.encode(ids_of(3, 1), {}, 0).is_finite);
}

}  // namespace
}  // namespace atelier::pipeline
