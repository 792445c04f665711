// Attention in e4m3 on CUDA: bytes that equal those of the CPU, FlashAttention-3 beside the same values in
// double, and what both kinds of numbers take at FLUX.1's sizes.
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "nn/hopper_attention.h"
#include "nn/sdpa.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

class CudaE4m3Attention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
  }
  // Of the kernel, which places need not have.
  std::string problem() const { return hopper_attention_problem(c10::kCUDA, at::kFloat8_e4m3fn, 128); }
  c10::InferenceMode guard_;
};

const at::TensorOptions kOnGpu = at::TensorOptions(c10::kCUDA);

at::Tensor some(at::IntArrayRef sizes, uint64_t seed) {
  return random(sizes, at::kFloat, seed);
}

double rms_error(const at::Tensor& got, const at::Tensor& want) {
  const auto wide = got.to(at::kCPU).to(at::kDouble);
  if (wide.sizes() != want.sizes()) return INFINITY;
  const double off = (wide - want).square().mean().item<double>();
  return std::isfinite(off) ? std::sqrt(off / want.square().mean().item<double>()) : INFINITY;
}

AttentionLayer layer_of(int64_t heads, int64_t width) {
  AttentionLayer layer{0, "attn", {0}, {0}, Dim{heads, width}};
  layer.is_e4m3 = true, layer.model_type = at::kBFloat16;
  return layer;
}

// One stream of a fused projection in bfloat16 with norms and rope, on a device.
struct FusedStream {
  at::Tensor fused;
  HeadNorm norm_q, norm_k;
  Rope rope;
  FusedStream(int64_t n, int64_t batch, int64_t heads, int64_t width, c10::Device device)
      : fused(some({n, batch, 3 * heads * width}, 1).to(at::kBFloat16).to(device)) {
    norm_q.weight = (1 + 0.2 * some({width}, 2)).to(at::kBFloat16).to(device);
    norm_k.weight = (1 + 0.2 * some({width}, 3)).to(at::kBFloat16).to(device);
    rope = {some({n, width / 2}, 4).cos().to(device), some({n, width / 2}, 5).sin().to(device)};
  }
  Projected projected(int64_t width) const { return split_qkv(fused, width, norm_q, norm_k, rope); }
};

TEST_F(CudaE4m3Attention, PlacesTheBytesOfTheCpu) {
  for (const int64_t width : {16, 64, 96, 128}) {
    const int64_t n = 77, batch = 2, heads = 3;
    std::vector<at::Tensor> bytes;
    for (const c10::Device device : {c10::Device(c10::kCPU), c10::Device(c10::kCUDA, 0)}) {
      const FusedStream stream(n, batch, heads, width, device);
      const auto options = at::TensorOptions(device).dtype(at::kFloat8_e4m3fn);
      const ProjectionSlot slot{
          at::empty({n, batch, heads, width}, options), at::empty({n, batch, 2, heads, width}, options), {}};
      const Range all{0, heads};
      place(stream.projected(width), std::span(&slot, 1), std::span(&all, 1));
      for (const auto& t : {slot.q, slot.kv}) bytes.push_back(t.view(at::kByte).to(at::kCPU));
    }
    EXPECT_TRUE(bytes[0].equal(bytes[2])) << "queries, heads of " << width;
    EXPECT_TRUE(bytes[1].equal(bytes[3])) << "keys and values, heads of " << width;
  }
}

// The kernel rounds what it multiplies values with to e4m3 too: a share of 2^-4 at most, seldom all.
TEST_F(CudaE4m3Attention, AttendsToTheValues) {
  if (!problem().empty()) GTEST_SKIP() << "skipped: " << problem();
  for (const int64_t width : {64, 80, 128, 256}) {
    for (const int64_t keys : {1, 77, 640, 4608}) {
      const int64_t queries = 129, batch = 2, heads = 3;
      const auto q = some({queries, batch, heads, width}, 1).to(at::kFloat8_e4m3fn),
                 kv = some({keys, batch, 2, heads, width}, 2).to(at::kFloat8_e4m3fn);
      Sdpa sdpa;
      const auto a = sdpa.run({}, layer_of(heads, width), {}, q.to(kOnGpu.device()), kv.to(kOnGpu.device()),
                              Lse::kNeeded);
      const auto heads_of = [](const at::Tensor& t) { return t.to(at::kDouble).permute({1, 2, 0, 3}); };
      const auto scores = heads_of(q).matmul(heads_of(kv.select(2, 0)).transpose(-1, -2)) /
                          std::sqrt(static_cast<double>(width));
      const auto out = at::softmax(scores, -1).matmul(heads_of(kv.select(2, 1))).permute({2, 0, 1, 3});
      EXPECT_EQ(a.out.scalar_type(), at::kBFloat16);
      EXPECT_LT(rms_error(a.out, out), 5e-2) << width << ", keys " << keys;
      EXPECT_LT((a.lse.to(at::kCPU) - scores.exp().sum(-1).log()).abs().max().item<double>(), 2e-2)
          << width << ", keys " << keys;
      ASSERT_EQ(sdpa.used().size(), 1u);
      EXPECT_EQ(*sdpa.used().begin(), "attention: FlashAttention-3, queries, keys and values in e4m3");
    }
  }
}

TEST_F(CudaE4m3Attention, FromProjectionsIsNearItsTwin) {
  if (!problem().empty()) GTEST_SKIP() << "skipped: " << problem();
  constexpr int64_t kTokens = 700, kHeads = 4, kWidth = 128;
  std::vector<at::Tensor> out;
  for (const c10::Device device : {c10::Device(c10::kCPU), c10::Device(c10::kCUDA, 0)}) {
    const FusedStream stream(kTokens, 1, kHeads, kWidth, device);
    SingleRank one;
    CallContext f;
    f.streams.push_back({.patches = {kTokens, 1}});
    out.push_back(Attention(layer_of(kHeads, kWidth), one.seams)(f, {stream.projected(kWidth)}));
  }
  EXPECT_LT(rms_error(out[1], out[0].to(at::kDouble)), 5e-2);
}

// Printed, not asserted.
TEST_F(CudaE4m3Attention, ReportsTimesAtFluxSizes) {
  if (!problem().empty()) GTEST_SKIP() << "skipped: " << problem();
  constexpr int64_t kTokens = 4608, kHeads = 24, kWidth = 128;
  constexpr int kRepeats = 50;
  for (const bool is_e4m3 : {false, true}) {
    const FusedStream stream(kTokens, 1, kHeads, kWidth, c10::Device(c10::kCUDA, 0));
    SingleRank one;
    auto layer = layer_of(kHeads, kWidth);
    layer.is_e4m3 = is_e4m3;
    CallContext f;
    f.streams.push_back({.patches = {kTokens, 1}});
    const Attention attend(layer, one.seams);
    for (int i = 0; i < 5; ++i) attend(f, {stream.projected(kWidth)});
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    begin.record();
    for (int i = 0; i < kRepeats; ++i) attend(f, {stream.projected(kWidth)});
    end.record();
    end.synchronize();
    std::printf("[ attention] %lld tokens, %lld heads of %lld, %s, placement and kernel: %.3f ms\n",
                static_cast<long long>(kTokens), static_cast<long long>(kHeads),
                static_cast<long long>(kWidth), is_e4m3 ? "e4m3" : "bfloat16",
                static_cast<double>(begin.elapsed_time(end)) / kRepeats);
  }
}

}  // namespace
}  // namespace atelier::nn
