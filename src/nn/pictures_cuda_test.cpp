// Layers of pictures and wide attention on CUDA against the same layers in double on the CPU.
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "nn/conv.h"
#include "nn/memory.h"
#include "nn/testing.h"
#include "nn/wide_attention.h"

namespace atelier::nn {
namespace {

class CudaPictureLayers : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
    at::globalContext().setAllowTF32CuDNN(false);
  }
  c10::InferenceMode guard_;
};

// Root mean square of the error, relative: rounding of the type, not an error of one place.
double error(const at::Tensor& got, const at::Tensor& want) {
  const auto wide = got.to(at::kCPU).to(at::kDouble);
  if (wide.sizes() != want.sizes()) return INFINITY;
  const double off = (wide - want).square().mean().item<double>();
  return std::isfinite(off) ? std::sqrt(off / want.square().mean().item<double>()) : INFINITY;
}

struct Typed {
  at::ScalarType type;
  double most;
};
const std::vector<Typed> kTypes = {{at::kFloat, 3e-6}, {at::kHalf, 2e-3}, {at::kBFloat16, 1.5e-2}};

// The same numbers on both sides: rounded to the type first.
struct Twin {
  at::Tensor cpu, gpu;
  Twin(at::IntArrayRef sizes, at::ScalarType type, uint64_t seed, double scale = 1) {
    const auto rounded = (random(sizes, at::kDouble, seed) * scale).to(type);
    cpu = rounded.to(at::kDouble);
    gpu = rounded.to(at::kCUDA);
  }
};

TEST_F(CudaPictureLayers, WeightsLieChannelsLastInTheirOwnMemory) {
  for (const int64_t side : {1, 3}) {
    const auto values = random({8, 4, side, side}, at::kFloat, 1);
    Parked memory;
    const auto taken =
        memory.take(BlockMemory::kResident, values.sizes(), values.options().device(at::kCUDA)).weight;
    taken.copy_(values);
    const auto w = channels_last_(taken);
    EXPECT_TRUE(w.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_EQ(w.const_data_ptr(), taken.const_data_ptr());
    EXPECT_TRUE(w.to(at::kCPU).equal(values));
    memory.release();
    memory.will_run({});
    EXPECT_TRUE(w.to(at::kCPU).equal(values));
  }
}

struct ResnetParts {
  Twin w, b, gamma, beta;
  explicit ResnetParts(at::ScalarType type)
      : w({64, 64, 3, 3}, type, 1, 0.06), b({64}, type, 2), gamma({64}, type, 3), beta({64}, type, 4) {}
  at::Tensor run(const at::Tensor& x) const {
    const bool cuda = x.is_cuda();
    const auto side = [&](const Twin& t) { return cuda ? t.gpu : t.cpu; };
    const Conv2d conv(side(w), side(b), {}, nullptr);
    const GroupNorm norm(side(gamma), side(beta), 32, 1e-6, nullptr);
    return sum(conv.unbiased(norm.silu(conv.unbiased(norm.silu({x, {}})))), conv.unbiased(x));
  }
};

TEST_F(CudaPictureLayers, AResnetIsTheCpusInEveryType) {
  for (const auto& [type, most] : kTypes) {
    const ResnetParts parts(type);
    const Twin x({2, 64, 9, 7}, type, 5);
    EXPECT_LT(error(parts.run(x.gpu), parts.run(x.cpu)), most) << type;
  }
}

// Knows the whole picture and where this rank's rows begin.
struct KnownRows : RowHalo {
  at::Tensor whole;
  int64_t begin = 0;
  at::Tensor pad(const at::Tensor& x, int64_t above, int64_t below) override {
    const auto edge = [&](int64_t n) {
      return at::zeros({whole.size(0), whole.size(1), n, whole.size(3)}, whole.options());
    };
    return at::cat({edge(above), whole, edge(below)}, 2).narrow(2, begin, above + x.size(2) + below);
  }
};

TEST_F(CudaPictureLayers, ADoublingConvolutionIsThatOfTheDoubledPicture) {
  for (const auto& [type, most] : kTypes) {
    const Twin w({24, 16, 3, 3}, type, 1, 0.1), b({24}, type, 2), x({2, 16, 6, 5}, type, 3);
    const auto want = DoublingConv2d(Conv2d(w.cpu, b.cpu, {}, nullptr))(x.cpu);
    EXPECT_LT(error(DoublingConv2d(Conv2d(w.gpu, b.gpu, {}, nullptr))(x.gpu), want), most) << type;
    KnownRows halo;
    halo.whole = x.gpu;
    const DoublingConv2d cut(Conv2d(w.gpu, b.gpu, {}, type == at::kFloat ? nullptr : &halo));
    for (const Range r : {Range{0, 2}, Range{2, 0}, Range{2, 4}}) {
      if (type == at::kFloat || r.size == 0) continue;  // doubled before it is convolved: other halos
      halo.begin = r.begin;
      EXPECT_LT(error(cut(x.gpu.narrow(2, r.begin, r.size)), want.narrow(2, 2 * r.begin, 2 * r.size)), most);
    }
  }
}

// Two passes: first every rank's moments are noted, then each gets their sum.
struct NotedMoments : Reducer {
  std::vector<at::Tensor> seen;
  bool replay = false;
  void sum(at::Tensor& value) override {
    if (!replay) return seen.push_back(value.clone());
    value.zero_();
    for (const auto& one : seen) value.add_(one);
  }
};

TEST_F(CudaPictureLayers, RowsOfSeveralRanksAreThoseOfTheWholePicture) {
  for (const auto& [type, most] : kTypes) {
    const Twin w({64, 64, 3, 3}, type, 1, 0.06), b({64}, type, 2), gamma({64}, type, 3), beta({64}, type, 4);
    const Twin x({2, 64, 9, 7}, type, 5);
    const auto want = GroupNorm(gamma.cpu, beta.cpu, 32, 1e-6, nullptr)
                          .silu(Conv2d(w.cpu, b.cpu, {}, nullptr).unbiased(x.cpu));
    KnownRows halo;
    halo.whole = x.gpu;
    NotedMoments moments;
    const Conv2d conv(w.gpu, b.gpu, {}, &halo);
    const GroupNorm norm(gamma.gpu, beta.gpu, 32, 1e-6, &moments);
    for (const bool replay : {false, true}) {
      moments.replay = replay;
      for (const Range r : {Range{0, 5}, Range{5, 0}, Range{5, 4}}) {
        halo.begin = r.begin;
        const auto part = norm.silu(conv.unbiased(x.gpu.narrow(2, r.begin, r.size)));
        ASSERT_EQ(part.size(2), r.size);
        if (replay && r.size > 0) EXPECT_LT(error(part, want.narrow(2, r.begin, r.size)), most) << type;
      }
    }
  }
}

TEST_F(CudaPictureLayers, WideAttentionIsSoftmaxAttention) {
  for (const auto& [type, most] : kTypes) {
    if (type == at::kFloat) continue;
    const Twin q({2, 1, 70, 320}, type, 1), k({2, 1, 90, 320}, type, 2), v({2, 1, 90, 320}, type, 3);
    const auto scores = q.cpu.matmul(k.cpu.transpose(-1, -2)) / std::sqrt(320.0);
    const auto got = wide_attention(q.gpu, k.gpu, v.gpu);
    EXPECT_LT(error(got.out, scores.softmax(-1).matmul(v.cpu)), most);
    EXPECT_LT(error(got.lse, scores.logsumexp({-1})), 1e-4);
  }
}

}  // namespace
}  // namespace atelier::nn
