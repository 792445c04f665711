// The CUDA kernels of pictures.h against their CPU twins, and their bandwidth at the sizes of a decoder.
#include "kernels/cuda_test_support.h"
#include "kernels/kernels.h"
#include "kernels/pictures_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

class CudaPictures : public CudaKernels {
 protected:
  // The moments of x + bias by the device's kernel, as a buffer of the host.
  Buffer moments(ElementType t, const PictureCase& c, const void* x, const void* bias) const {
    Buffer out(ElementType::kF64, 3 * c.batch * c.groups);
    const DeviceMemory on(out.bytes()), scratch(8 * moments_scratch(pixels(c, nullptr, nullptr)));
    group_moments(device(), t, pixels(c, x, bias), c.groups, static_cast<double*>(on.at(0)),
                  static_cast<double*>(scratch.at(0)));
    wait();
    must(cudaMemcpy(out.data(), on.at(0), static_cast<size_t>(out.bytes()), cudaMemcpyDeviceToHost));
    return out;
  }
};

TEST_F(CudaPictures, MomentsMatchTheirTwinAndRepeatTheirBits) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      SCOPED_TRACE(std::string(name_of(t)) + " C=" + std::to_string(c.channels));
      const Buffer x = normal(t, c.count() + c.skew, 1, 3, 2), bias = normal(t, c.channels + c.skew, 2);
      Mirror on;
      for (const bool biased : {false, true}) {
        const Buffer got = moments(t, c, on(x, c.skew), biased ? on(bias, c.skew) : nullptr);
        Buffer want(ElementType::kF64, got.count());
        group_moments({}, t, pixels(c, x.data(c.skew), biased ? bias.data(c.skew) : nullptr), c.groups,
                      static_cast<double*>(want.data()), nullptr);
        const double loose = t == ElementType::kF64 ? 1e-12 : 2e-6;
        for (int64_t i = 0; i < want.count(); ++i)
          ASSERT_NEAR(got[i], want[i], loose * (want[i % (c.batch * c.groups)] + std::abs(want[i])));
        const Buffer again = moments(t, c, on(x, c.skew), biased ? on(bias, c.skew) : nullptr);
        EXPECT_EQ(std::memcmp(got.data(), again.data(), static_cast<size_t>(got.bytes())), 0);
      }
    }
  }
}

TEST_F(CudaPictures, GroupNormMatchesItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      SCOPED_TRACE(std::string(name_of(t)) + " C=" + std::to_string(c.channels));
      const Buffer x = normal(t, c.count() + c.skew, 1, 3, 2), bias = normal(t, c.channels, 2);
      const Buffer weight = normal(t, c.channels, 3, 1, 0.3), shift = normal(t, c.channels, 4);
      Buffer sums(ElementType::kF64, 3 * c.batch * c.groups);
      group_moments({}, t, pixels(c, x.data(c.skew), bias.data()), c.groups,
                    static_cast<double*>(sums.data()), nullptr);
      for (const auto nonlinearity : {Nonlinearity::kNone, Nonlinearity::kSilu}) {
        Buffer out = normal(t, x.count(), 5);
        Mirror on;
        group_norm(
            device(), t, on(out, c.skew), pixels(c, on(x, c.skew), on(bias, 0)),
            {static_cast<double*>(on(sums, 0)), c.groups, 1e-6, on(weight, 0), on(shift, 0), nonlinearity});
        group_norm(
            {}, t, out.data(c.skew), pixels(c, x.data(c.skew), bias.data()),
            {static_cast<double*>(sums.data()), c.groups, 1e-6, weight.data(), shift.data(), nonlinearity});
        wait();
        expect_same(on.back(out), out, 8);
      }
    }
  }
}

TEST_F(CudaPictures, ChannelNormMatchesItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      SCOPED_TRACE(std::string(name_of(t)) + " C=" + std::to_string(c.channels));
      const Buffer x = normal(t, c.count() + c.skew, 1, 3, 2), bias = normal(t, c.channels, 2);
      const Buffer weight = normal(t, c.channels, 3, 1, 0.3);
      for (const auto nonlinearity : {Nonlinearity::kNone, Nonlinearity::kSilu}) {
        Buffer out = normal(t, x.count(), 5);
        Mirror on;
        channel_norm(device(), t, on(out, c.skew), pixels(c, on(x, c.skew), on(bias, 0)),
                     {3, 1e-12, on(weight, 0), nonlinearity});
        channel_norm({}, t, out.data(c.skew), pixels(c, x.data(c.skew), bias.data()),
                     {3, 1e-12, weight.data(), nonlinearity});
        wait();
        expect_same(on.back(out), out, 8);
      }
    }
  }
}

TEST_F(CudaPictures, AddAndWeaveMatchTheirTwins) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      SCOPED_TRACE(std::string(name_of(t)) + " C=" + std::to_string(c.channels));
      const Buffer y = normal(t, c.count() + c.skew, 1), bias = normal(t, c.channels, 2);
      Buffer x = normal(t, y.count(), 3);
      const Buffer four = normal(t, c.batch * (c.rows + 1) * (c.cols + 1) * 4 * c.channels + c.skew, 4);
      Buffer out = normal(t, 4 * c.count(), 5);
      Mirror on;
      add_pixels(device(), t, on(x, c.skew), pixels(c, on(y, c.skew), on(bias, 0)));
      weave(device(), t, on(out, 0), on(four, c.skew), on(bias, 0), c.batch, c.rows, c.cols, c.channels);
      add_pixels({}, t, x.data(c.skew), pixels(c, y.data(c.skew), bias.data()));
      weave({}, t, out.data(), four.data(c.skew), bias.data(), c.batch, c.rows, c.cols, c.channels);
      wait();
      expect_same(on.back(x), x, 4);
      expect_same(on.back(out), out, 4);
    }
  }
}

TEST_F(CudaPictures, SoftmaxAndGatedGeluMatchTheirTwins) {
  for (const ElementType t : kAllTypes) {
    for (const int64_t columns : {1, 7, 64, 1000, 4096, 20000}) {
      SCOPED_TRACE(std::string(name_of(t)) + " " + std::to_string(columns));
      const Buffer scores = normal(table_type(t), 3 * columns, 1, 20, 30);
      Buffer out = normal(t, 3 * columns, 2), lse = normal(table_type(t), 3, 3);
      const Buffer x = normal(t, 6 * columns, 4, 0, 2);
      Buffer gated = normal(t, 3 * columns, 5), exact = normal(t, 3 * columns, 6);
      Mirror on;
      softmax(device(), t, on(out, 0), on(lse, 0), on(scores, 0), 0.3, 3, columns);
      gated_gelu(device(), t, GatedGelu::kTanhFirst, on(gated, 0), on(x, 0), 3, columns);
      gated_gelu(device(), t, GatedGelu::kErfSecond, on(exact, 0), on(x, 0), 3, columns);
      softmax({}, t, out.data(), lse.data(), scores.data(), 0.3, 3, columns);
      gated_gelu({}, t, GatedGelu::kTanhFirst, gated.data(), x.data(), 3, columns);
      gated_gelu({}, t, GatedGelu::kErfSecond, exact.data(), x.data(), 3, columns);
      wait();
      expect_same(on.back(out), out);
      expect_same(on.back(lse), lse, 8);
      expect_same(on.back(gated), gated, 8);
      expect_same(on.back(exact), exact, 8);
    }
  }
}

// Printed, not asserted; two copies of a picture are several times the L2 cache.
TEST_F(CudaPictures, ReportsBandwidthAtADecodersSizes) {
  constexpr ElementType t = ElementType::kBF16;
  for (const auto& [side, channels] :
       std::vector<std::pair<int64_t, int64_t>>{{1024, 128}, {512, 256}, {128, 512}}) {
    const int64_t bytes = side * side * channels * 2, half = side / 2;
    std::vector<DeviceMemory> x;
    for (int i = 0; i < 4; ++i) x.emplace_back(5 * bytes / 4 + 8 * side * channels);
    for (const auto& m : x) must(cudaMemset(m.at(0), 0x3c, static_cast<size_t>(bytes)));
    const DeviceMemory weight(channels * 2), sums(3 * 32 * 8);
    must(cudaMemset(weight.at(0), 0x3c, static_cast<size_t>(channels * 2)));
    const auto on = [&](int i) { return Pixels{x[i % 4].at(0), weight.at(0), 1, side * side, channels}; };
    const DeviceMemory scratch(8 * moments_scratch(on(0)));
    must(cudaDeviceSynchronize());
    const std::string size =
        " " + std::to_string(side) + "x" + std::to_string(side) + "x" + std::to_string(channels);
    auto* moments = static_cast<double*>(sums.at(0));
    report(("group_moments" + size).c_str(), bytes, microseconds(40, [&](int i) {
             group_moments(device(), t, on(i), 32, moments, static_cast<double*>(scratch.at(0)));
           }));
    report(("group_norm" + size).c_str(), 2 * bytes, microseconds(40, [&](int i) {
             group_norm(device(), t, x[(i + 2) % 4].at(0), on(i),
                        {moments, 32, 1e-6, weight.at(0), weight.at(0), Nonlinearity::kSilu});
           }));
    report(("channel_norm" + size).c_str(), 2 * bytes, microseconds(40, [&](int i) {
             channel_norm(device(), t, x[(i + 2) % 4].at(0), on(i),
                          {11, 1e-12, weight.at(0), Nonlinearity::kSilu});
           }));
    report(("add_pixels" + size).c_str(), 3 * bytes,
           microseconds(40, [&](int i) { add_pixels(device(), t, x[(i + 2) % 4].at(0), on(i)); }));
    report(("weave" + size).c_str(), 2 * bytes, microseconds(40, [&](int i) {
             weave(device(), t, x[(i + 2) % 4].at(0), x[i % 4].at(0), weight.at(0), 1, half, half, channels);
           }));
  }
  const int64_t rows = 4096, columns = 16384;
  const DeviceMemory scores(rows * columns * 4), shares(rows * columns * 2);
  must(cudaMemset(scores.at(0), 0x3c, static_cast<size_t>(rows * columns * 4)));
  must(cudaDeviceSynchronize());
  report("softmax 4096x16384", 6 * rows * columns, microseconds(20, [&](int) {
           softmax(device(), t, shares.at(0), nullptr, scores.at(0), 0.04, rows, columns);
         }));
}

}  // namespace
}  // namespace atelier::kernels
