// The CUDA kernels of quantise.h against their CPU twins: equal bytes, equal scales, inside a captured graph
// as well; and their bandwidth at FLUX.1's sizes.
#include "kernels/cuda_test_support.h"
#include "kernels/quantise_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

class CudaQuantise : public CudaKernels {
 protected:
  struct OnDevice {
    DeviceMemory rows, scales;
    explicit OnDevice(const QuantisedBytes& like)
        : rows(static_cast<int64_t>(like.rows.size())),
          scales(static_cast<int64_t>(4 * like.scales.size())) {}
    E4m3Rows out() const { return {rows.at(0), static_cast<float*>(scales.at(0))}; }
  };
  void expect_equal(const OnDevice& device, const QuantisedBytes& host) const {
    wait();
    QuantisedBytes got = host;
    must(cudaMemcpy(got.rows.data(), device.rows.at(0), got.rows.size(), cudaMemcpyDeviceToHost));
    must(cudaMemcpy(got.scales.data(), device.scales.at(0), 4 * got.scales.size(), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < host.scales.size(); ++i) {
      if (std::isnan(host.scales[i]) && std::isnan(got.scales[i])) continue;
      ASSERT_EQ(got.scales[i], host.scales[i]) << "row " << i;
    }
    for (size_t i = 0; i < host.rows.size(); ++i)
      ASSERT_EQ(int{got.rows[i]}, int{host.rows[i]}) << "byte " << i << " of " << host.rows.size();
  }
};

TEST_F(CudaQuantise, RowsEqualTheirTwins) {
  for (const ElementType t : kAllTypes) {
    for (const SegmentCase& c : kSegments) {
      SCOPED_TRACE(std::string(name_of(t)) + " C=" + std::to_string(c.total()));
      const auto data = data_of(c, t);
      Mirror on;
      QuantisedBytes want(c.rows, c.total());
      const OnDevice got(want);
      quantise_e4m3(
          device(), t, got.out(),
          segments_of(c, data, [&](const Buffer& b, int64_t at) -> const void* { return on(b, at); }),
          c.rows);
      quantise_e4m3(
          {}, t, want.out(),
          segments_of(c, data, [](const Buffer& b, int64_t at) -> const void* { return b.data(at); }),
          c.rows);
      expect_equal(got, want);
      if (HasFatalFailure()) return;
    }
  }
}

// Every half number there is, alone and through gelu, under a row of its own size.
TEST_F(CudaQuantise, EverySixteenBitNumberEqualsItsTwins) {
  for (const ElementType t : {ElementType::kBF16, ElementType::kF16}) {
    for (const bool gelu : {false, true}) {
      for (const int64_t width : {int64_t{16}, int64_t{1024}}) {
        const int64_t count = 1 << 16;
        Buffer x(t, count);
        for (int64_t i = 0; i < count; ++i) {
          const auto bits = static_cast<uint16_t>(i);
          std::memcpy(x.data(i), &bits, sizeof(bits));
        }
        Mirror on;
        QuantisedBytes want(count / width, width);
        const OnDevice got(want);
        const RowSegment there{on(x, 0), width, width, gelu}, here{x.data(), width, width, gelu};
        quantise_e4m3(device(), t, got.out(), std::span(&there, 1), count / width);
        quantise_e4m3({}, t, want.out(), std::span(&here, 1), count / width);
        expect_equal(got, want);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(CudaQuantise, NormModulateEqualsItsTwin) {
  struct Rows {
    int64_t n, batch, channels, skew = 0;
  };
  const std::vector<Rows> all = {{0, 1, 8},     {1, 1, 2},     {3, 2, 24},    {2, 3, 37},
                                 {5, 2, 64, 1}, {67, 2, 384},  {9, 1, 1152},  {513, 1, 3072},
                                 {33, 2, 4096}, {20, 1, 5120}, {2, 1, 10240}, {2, 1, 20000}};
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels, skew] : all) {
      SCOPED_TRACE(std::string(name_of(t)) + " C=" + std::to_string(channels));
      const Buffer x = normal(t, n * batch * channels + skew, 1, 0.5, 2),
                   mod = normal(t, batch * 6 * channels, 2);
      Mirror on;
      QuantisedBytes want(n * batch, channels);
      const OnDevice got(want);
      norm_modulate_e4m3(device(), t, got.out(), on(x, skew), on(mod, channels), on(mod, 0), n, batch,
                         channels, 6 * channels, 1e-6);
      norm_modulate_e4m3({}, t, want.out(), x.data(skew), mod.data(channels), mod.data(0), n, batch, channels,
                         6 * channels, 1e-6);
      expect_equal(got, want);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaQuantise, CanBeCapturedIntoAGraph) {
  const ElementType t = ElementType::kBF16;
  const Buffer x = normal(t, 9 * 256, 1), mod = normal(t, 512, 2);
  Mirror on;
  QuantisedBytes normed(9, 256), rows(9, 256);
  const OnDevice of_norm(normed), of_rows(rows);
  const std::vector<void*> ready = {on(x, 0), on(mod, 0),
                                    on(mod, 256)};  // copied in before the capture begins
  const RowSegment there{ready[0], 256, 256, true}, here{x.data(), 256, 256, true};
  must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  norm_modulate_e4m3(device(), t, of_norm.out(), ready[0], ready[1], ready[2], 9, 1, 256, 256, 1e-6);
  quantise_e4m3(device(), t, of_rows.out(), std::span(&there, 1), 9);
  cudaGraph_t graph = nullptr;
  must(cudaStreamEndCapture(stream_, &graph));
  size_t nodes = 0;
  must(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_EQ(nodes, 2u);
  cudaGraphExec_t exec = nullptr;
  must(cudaGraphInstantiate(&exec, graph, 0));
  must(cudaGraphLaunch(exec, stream_));
  norm_modulate_e4m3({}, t, normed.out(), x.data(), mod.data(), mod.data(256), 9, 1, 256, 256, 1e-6);
  quantise_e4m3({}, t, rows.out(), std::span(&here, 1), 9);
  expect_equal(of_norm, normed);
  expect_equal(of_rows, rows);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

// Printed, not asserted: the buffers rotate so that the L2 cache does not serve what memory should.
TEST_F(CudaQuantise, ReportsBandwidthAtFluxSizes) {
  constexpr ElementType t = ElementType::kBF16;
  constexpr int kCopies = 4, kRepeats = 100;
  constexpr int64_t n = 4608, width = 3072;
  std::vector<DeviceMemory> in, out;
  for (int i = 0; i < kCopies; ++i) {
    in.emplace_back(n * 5 * width * 2);
    out.emplace_back(n * 5 * width + 4 * n);
    must(cudaMemset(in.back().at(0), 0x3c, static_cast<size_t>(n * 5 * width * 2)));
  }
  const auto rows = [&](int i) {
    const auto& memory = out[static_cast<size_t>(i % kCopies)];
    return E4m3Rows{memory.at(4 * n), static_cast<float*>(memory.at(0))};
  };
  const auto from = [&](int i) { return in[static_cast<size_t>(i % kCopies)].at(0); };
  report("norm + modulate + e4m3, 4608 x 3072", 3.0 * n * width, microseconds(kRepeats, [&](int i) {
           norm_modulate_e4m3(device(), t, rows(i), from(i), from(i), from(i), n, 1, width, width, 1e-6);
         }));
  const auto quantise = [&](const char* what, std::vector<RowSegment> segments) {
    int64_t all = 0;
    for (const auto& s : segments) all += s.channels;
    report(what, 3.0 * n * all, microseconds(kRepeats, [&](int i) {
             auto here = segments;
             int64_t column = 0;
             for (auto& s : here)
               s.x = in[static_cast<size_t>(i % kCopies)].at(2 * n * column), column += s.channels;
             quantise_e4m3(device(), t, rows(i), here, n);
           }));
  };
  quantise("e4m3, 4608 x 3072", {{nullptr, width, width, false}});
  quantise("gelu + e4m3, 4608 x 12288", {{nullptr, 4 * width, 4 * width, true}});
  quantise("[attention | gelu] + e4m3, 4608 x 15360",
           {{nullptr, width, width, false}, {nullptr, 4 * width, 4 * width, true}});
}

}  // namespace
}  // namespace atelier::kernels
