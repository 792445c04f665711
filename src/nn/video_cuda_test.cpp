// Layers of videos on CUDA against the same layers in double on the CPU.
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "nn/memory.h"
#include "nn/testing.h"
#include "nn/video.h"

namespace atelier::nn {
namespace {

class CudaVideoLayers : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
    at::globalContext().setAllowTF32CuDNN(false);
  }
  c10::InferenceMode guard_;
};

double relative_error(const at::Tensor& got, const at::Tensor& want) {
  const auto wide = got.to(at::kCPU).to(at::kDouble);
  if (wide.sizes() != want.sizes()) return INFINITY;
  const double off = (wide - want).square().mean().item<double>();
  return std::isfinite(off) ? std::sqrt(off / want.square().mean().item<double>()) : INFINITY;
}

const std::vector<std::pair<at::ScalarType, double>> kLimits = {
    {at::kFloat, 3e-6}, {at::kHalf, 2e-3}, {at::kBFloat16, 1.5e-2}};

// A resnet's two norms and convolutions, and one over time, chunk by chunk.
at::Tensor through(at::Device device, at::ScalarType type, const at::Tensor& video) {
  const auto on = [&](at::IntArrayRef sizes, uint64_t seed, double scale) {
    return (random(sizes, at::kDouble, seed) * scale)
        .to(type)
        .to(at::TensorOptions(device).dtype(device.is_cuda() ? type : at::kDouble));
  };
  const auto weight = [&](at::IntArrayRef sizes, uint64_t seed) {
    return channels_last_(on(sizes, seed, 0.05));
  };
  const ChannelNorm norm(on({32}, 3, 1));
  const CausalConv3d first(weight({32, 32, 3, 3, 3}, 1), on({32}, 2, 1), {}, nullptr);
  const CausalConv3d point(weight({32, 32, 1, 1, 1}, 4), on({32}, 5, 1), {.frames = 1, .kernel = 1}, nullptr);
  const CausalConv3d time(weight({32, 32, 3, 1, 1}, 6), on({32}, 7, 1), {.kernel = 1, .frame_stride = 2},
                          nullptr);
  at::Tensor past1, past2, past3;
  std::vector<at::Tensor> all;
  for (const int64_t begin : {0, 4}) {
    const auto x =
        pictures_of(video.narrow(1, begin, 4).to(type).to(device).to(device.is_cuda() ? type : at::kDouble));
    const auto y = first.unbiased_of_silu(norm, {x, {}}, 2, past1);
    const auto z = sum(first.unbiased_of_silu(norm, y, 2, past2), point.unbiased(x));
    if (begin == 0) time.remember(z, 2, past3);
    all.push_back(begin == 0 ? z : time(z, 2, past3));
  }
  return at::cat({frames_of(all[0], 2), frames_of(all[1], 2)}, 1);
}

TEST_F(CudaVideoLayers, GoThroughAVideoAsTheirTwinsDo) {
  const auto video = random({2, 8, 9, 7, 32});
  for (const auto& [type, most] : kLimits)
    EXPECT_LT(relative_error(through(at::kCUDA, type, video), through(at::kCPU, type, video)), most) << type;
}

TEST_F(CudaVideoLayers, WeightsLieChannelsLastInTheirOwnMemory) {
  const auto values = random({8, 4, 3, 3, 3}, at::kFloat, 1);
  auto taken = values.to(at::kCUDA);
  const auto w = channels_last_(taken);
  EXPECT_TRUE(w.is_contiguous(at::MemoryFormat::ChannelsLast3d));
  EXPECT_EQ(w.const_data_ptr(), taken.const_data_ptr());
  EXPECT_TRUE(w.to(at::kCPU).equal(values));
}

}  // namespace
}  // namespace atelier::nn
