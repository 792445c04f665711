// Products of e4m3 on CUDA against the same bytes multiplied in float on the CPU.
#include <ATen/ops/cat.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

constexpr auto kE4m3 = at::kFloat8_e4m3fn;

class CudaProducts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
  }
  c10::InferenceMode guard_;
};

// The same layer on both sides.
struct TwinLayer {
  Linear cpu, gpu;
  TwinLayer(int64_t in, int64_t out, at::ScalarType type, bool has_bias, uint64_t seed) {
    const auto w = quantised_weight(random({out, in}, at::kFloat, seed), kE4m3);
    const auto b = has_bias ? random({out}, type, seed + 1) : at::Tensor();
    cpu = {w, b, nullptr};
    gpu = {Weight(w.rows().to(at::kCUDA), w.scale().to(at::kCUDA)), has_bias ? b.to(at::kCUDA) : b, nullptr};
  }
};

bool same_bytes(const Activation& gpu, const Activation& cpu) {
  return gpu.rows().to(at::kCPU).view(at::kByte).equal(cpu.rows().view(at::kByte)) &&
         gpu.scale().to(at::kCPU).equal(cpu.scale());
}

double error(const at::Tensor& gpu, const at::Tensor& cpu) {
  const auto a = gpu.to(at::kCPU).to(at::kDouble), b = cpu.to(at::kDouble);
  return std::sqrt((a - b).square().mean().item<double>() / b.square().mean().item<double>());
}

// Within the rounding of the result, and what fast accumulation loses.
TEST_F(CudaProducts, OfE4m3AreThoseOfTheirValues) {
  struct Size {
    int64_t rows, in, out;
  };
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    for (const auto& [rows, in, out] : std::vector<Size>{
             {1, 16, 16}, {5, 64, 48}, {0, 64, 48}, {130, 3072, 3072}, {512, 1152, 4608}, {33, 72, 40}}) {
      for (const bool has_bias : {false, true}) {
        SCOPED_TRACE(str(rows, " rows, ", in, " to ", out, has_bias ? " with bias" : ""));
        const TwinLayer layer(in, out, type, has_bias, 3);
        const auto x = random({rows, 1, in}, type);
        const auto got = layer.gpu(x.to(at::kCUDA)), want = layer.cpu(x);
        EXPECT_EQ(got.scalar_type(), type);
        ASSERT_EQ(got.sizes(), want.sizes());
        if (rows == 0) continue;
        EXPECT_LT(error(got, want), 5e-3);
      }
    }
  }
}

TEST_F(CudaProducts, OperandsHaveTheBytesOfTheCpu) {
  for (const auto type : {at::kBFloat16, at::kHalf, at::kFloat}) {
    const auto x = random({130, 2, 1152}, type);
    const Modulation m{random({2, 1152}, type, 5), random({2, 1152}, type, 6), {}};
    const Modulation there{m.shift.to(at::kCUDA), m.scale.to(at::kCUDA), {}};
    const Activation cpu = norm(x, m), gpu = norm(x.to(at::kCUDA), there);
    EXPECT_TRUE(same_bytes(e4m3_of(std::span(&gpu, 1)), e4m3_of(std::span(&cpu, 1)))) << at::toString(type);
    const Activation two[] = {x, x.narrow(-1, 128, 512)},
                     two_there[] = {x.to(at::kCUDA), x.to(at::kCUDA).narrow(-1, 128, 512)};
    EXPECT_TRUE(same_bytes(e4m3_of(two_there), e4m3_of(two))) << at::toString(type);
  }
}

// gelu between two products, beside another segment, as FLUX's single blocks have it.
TEST_F(CudaProducts, GeluIsRoundedOnTheWay) {
  const TwinLayer up(256, 1024, at::kBFloat16, true, 3), down(256 + 1024, 256, at::kBFloat16, true, 7);
  const auto x = random({77, 1, 256}, at::kBFloat16), there = x.to(at::kCUDA);
  const auto got = down.gpu({there, gelu_tanh(up.gpu, there)}), want = down.cpu({x, gelu_tanh(up.cpu, x)});
  EXPECT_LT(error(got, want), 2e-2);
}

}  // namespace
}  // namespace atelier::nn
