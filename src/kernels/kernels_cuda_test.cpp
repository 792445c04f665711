// The CUDA kernels against their CPU twins, inside a captured graph as well, and their bandwidth at FLUX.1's
// sizes. Without a GPU every test says so and is skipped.
#include "kernels/cuda_test_support.h"
#include "kernels/place_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

// n, batch, channels, and by how many elements the buffers start late.
struct Rows {
  int64_t n, batch, channels, skew = 0;
};
const std::vector<Rows> kRows = {{0, 1, 8},     {1, 1, 2},     {3, 2, 24},    {2, 3, 37},
                                 {5, 2, 64, 1}, {67, 2, 384},  {9, 1, 768},   {4, 1, 1152},
                                 {3, 1, 3072},  {33, 2, 4096}, {2, 1, 10000}, {2, 1, 40000}};

TEST_F(CudaKernels, NormModulateMatchesItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels, skew] : kRows) {
      SCOPED_TRACE(channels);
      const Buffer x = normal(t, n * batch * channels + skew, 1, 0.5, 2),
                   mod = normal(t, batch * 6 * channels, 2);
      Buffer out = normal(t, x.count(), 3);
      Mirror on;
      norm_modulate(device(), t, on(out, skew), on(x, skew), on(mod, channels), on(mod, 0), n, batch,
                    channels, 6 * channels, 1e-6);
      norm_modulate(device(), t, on(x, skew), on(x, skew), on(mod, channels), on(mod, 0), n, batch, channels,
                    6 * channels, 1e-6);
      norm_modulate({}, t, out.data(skew), x.data(skew), mod.data(channels), mod.data(0), n, batch, channels,
                    6 * channels, 1e-6);
      wait();
      expect_same(on.back(out), out, 8);
      if (skew == 0) expect_same(on.back(x), out, 8);
    }
  }
}

TEST_F(CudaKernels, GatedAddMatchesItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels, skew] : kRows) {
      SCOPED_TRACE(channels);
      const Buffer y = normal(t, n * batch * channels + skew, 1), gate = normal(t, batch * 6 * channels, 2);
      const Buffer bias = normal(t, channels, 3);
      for (const bool biased : {false, true}) {
        Buffer x = normal(t, y.count(), 4);
        Mirror on;
        gated_add(device(), t, on(x, skew), on(y, skew), biased ? on(bias, 0) : nullptr, on(gate, 0), n,
                  batch, channels, 6 * channels);
        gated_add({}, t, x.data(skew), y.data(skew), biased ? bias.data() : nullptr, gate.data(), n, batch,
                  channels, 6 * channels);
        wait();
        expect_same(on.back(x), x, 4);
      }
    }
  }
}

TEST_F(CudaKernels, GeluTanhMatchesItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels, skew] : kRows) {
      SCOPED_TRACE(channels);
      const int64_t rows = n * batch, stride = channels + 8;
      const Buffer bias = normal(t, channels, 1);
      for (const bool biased : {false, true}) {
        Buffer x = normal(t, rows * stride + skew, 2, 0, 4);
        Mirror on;
        gelu_tanh(device(), t, on(x, skew), biased ? on(bias, 0) : nullptr, rows, channels, stride);
        gelu_tanh({}, t, x.data(skew), biased ? bias.data() : nullptr, rows, channels, stride);
        wait();
        expect_same(on.back(x), x, 4);
      }
    }
  }
}

// Places a case on both devices; `compare` is given what the device wrote, and its twin.
template <class Compare>
void place_on_both(const PlaceCase& c, ElementType t, const LaunchTarget& device, const Compare& compare) {
  SCOPED_TRACE(std::string(name_of(t)) + " " + c.text());
  PlaceData data(c, t);
  std::vector<Target> targets;
  Mirror on;
  place(device, t,
        placement(c, data, targets, [&](const Buffer& b, int64_t at) -> void* { return on(b, at); }));
  must(cudaStreamSynchronize(static_cast<cudaStream_t>(device.stream)));
  place({}, t, placement(c, data, targets, [](Buffer& b, int64_t at) -> void* { return b.data(at); }));
  for (size_t i = 0; i < c.split.size(); ++i) {
    if (c.asks) compare(on.back(data.q[i]), data.q[i]);
    compare(on.back(data.kv[i]), data.kv[i]);
  }
  for (const Buffer& copy : data.kv_copies) compare(on.back(copy), copy);
}

TEST_F(CudaKernels, PlaceMatchesItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const PlaceCase& c : place_cases()) {
      place_on_both(c, t, device(), [](const Buffer& got, const Buffer& want) { expect_same(got, want, 8); });
      if (HasFatalFailure()) return;
    }
  }
}

void expect_equal_bytes(const Buffer& device, const Buffer& host) {
  const auto *got = static_cast<const uint8_t*>(device.data()),
             *want = static_cast<const uint8_t*>(host.data());
  for (int64_t i = 0; i < host.bytes(); ++i) ASSERT_EQ(int{got[i]}, int{want[i]}) << "byte " << i;
}

TEST_F(CudaKernels, PlaceIntoE4m3EqualsItsTwin) {
  for (const ElementType t : kAllTypes) {
    for (const PlaceCase& c : byte_cases()) {
      place_on_both(c, t, device(), expect_equal_bytes);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaKernels, PlacesEverySixteenBitNumberIntoE4m3AsItsTwin) {
  for (const ElementType t : {ElementType::kBF16, ElementType::kF16}) {
    for (const Norm norm : {Norm::kNone, Norm::kRms, Norm::kLayer}) {
      const int64_t n = 512, dim = 128;
      Buffer x(t, n * dim), kv(t, 2 * n * dim);
      for (int64_t i = 0; i < x.count(); ++i) {
        const auto bits = static_cast<uint16_t>(i);
        std::memcpy(x.data(i), &bits, sizeof(bits));
      }
      const auto call = [&](void* from, void* to, const LaunchTarget& where) {
        const Target target{nullptr, to, 0, 1};
        place(where, t,
              {.k = {from, dim, 0, dim},
               .v = {from, dim, 0, dim},
               .norm_k = norm,
               .n = n,
               .batch = 1,
               .heads = 1,
               .head_dim = dim,
               .targets = std::span(&target, 1),
               .is_e4m3 = true});
      };
      Mirror on;
      call(on(x, 0), on(kv, 0), device());
      wait();
      call(x.data(), kv.data(), {});
      expect_equal_bytes(on.back(kv), kv);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaKernels, CanBeCapturedIntoAGraph) {
  const ElementType t = ElementType::kBF16;
  const PlaceCase c{.n = 9, .batch = 1, .heads = 4, .dim = 64, .split = {3, 1}};
  PlaceData data(c, t);
  Buffer x = normal(t, 9 * 256, 1), mod = normal(t, 512, 2);
  std::vector<Target> targets;
  Mirror on;
  const auto address = [&](const Buffer& b, int64_t at) -> void* { return on(b, at); };
  const Placement p = placement(c, data, targets, address);
  const std::vector<void*> ready = {on(x, 0), on(mod, 0)};  // copied in before the capture begins
  must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  norm_modulate(device(), t, ready[0], ready[0], ready[1], ready[1], 9, 1, 256, 256, 1e-6);
  gelu_tanh(device(), t, ready[0], nullptr, 9, 256, 256);
  gated_add(device(), t, ready[0], ready[0], nullptr, ready[1], 9, 1, 256, 256);
  place(device(), t, p);
  cudaGraph_t graph = nullptr;
  must(cudaStreamEndCapture(stream_, &graph));
  size_t nodes = 0;
  must(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_EQ(nodes, 4u);
  cudaGraphExec_t exec = nullptr;
  must(cudaGraphInstantiate(&exec, graph, 0));
  must(cudaGraphLaunch(exec, stream_));
  wait();
  norm_modulate({}, t, x.data(), x.data(), mod.data(), mod.data(), 9, 1, 256, 256, 1e-6);
  gelu_tanh({}, t, x.data(), nullptr, 9, 256, 256);
  gated_add({}, t, x.data(), x.data(), nullptr, mod.data(), 9, 1, 256, 256);
  place({}, t, placement(c, data, targets, [](Buffer& b, int64_t at) -> void* { return b.data(at); }));
  const Buffer got = on.back(x);
  for (int64_t i = 0; i < x.count(); ++i)
    ASSERT_NEAR(got[i], x[i], 0.03 * (1 + std::abs(x[i])));  // three roundings
  for (size_t i = 0; i < 2; ++i) expect_same(on.back(data.kv[i]), data.kv[i], 8);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

// Printed, not asserted: the buffers rotate so that the L2 cache does not serve what memory should.
TEST_F(CudaKernels, ReportsBandwidthAtFluxSizes) {
  constexpr ElementType t = ElementType::kBF16;
  constexpr int kCopies = 6, kRepeats = 100;
  constexpr int64_t n = 4608, width = 3072, bytes = n * width * 2;
  std::vector<DeviceMemory> in, out;
  for (int i = 0; i < kCopies; ++i) {
    in.emplace_back(4 * bytes);
    out.emplace_back(3 * bytes);
    must(cudaMemset(in.back().at(0), 0x3c, 4 * bytes));
    must(cudaMemset(out.back().at(0), 0x3c, 3 * bytes));
  }
  const DeviceMemory mod(6 * width * 2), table(n * 128 * 4);
  must(cudaMemset(mod.at(0), 0, 6 * width * 2));
  must(cudaMemset(table.at(0), 0, n * 128 * 4));
  must(cudaDeviceSynchronize());
  report("norm_modulate 4608x3072 bf16", 2 * bytes, microseconds(kRepeats, [&](int i) {
           norm_modulate(device(), t, out[i % kCopies].at(0), in[i % kCopies].at(0), mod.at(0),
                         mod.at(width * 2), n, 1, width, 6 * width, 1e-6);
         }));
  report("gated_add 4608x3072 bf16", 3 * bytes, microseconds(kRepeats, [&](int i) {
           gated_add(device(), t, out[i % kCopies].at(0), in[i % kCopies].at(0), nullptr, mod.at(0), n, 1,
                     width, 6 * width);
         }));
  report("gelu_tanh 4608x12288 bf16", 8 * bytes, microseconds(kRepeats, [&](int i) {
           gelu_tanh(device(), t, in[i % kCopies].at(0), nullptr, n, 4 * width, 4 * width);
         }));
  for (const auto& [parts, is_e4m3] :
       std::vector<std::pair<int64_t, bool>>{{1, false}, {8, false}, {1, true}, {8, true}}) {
    const auto run = [&, parts = parts, is_e4m3 = is_e4m3](int i) {
      std::vector<Target> targets;
      for (int64_t p = 0; p < parts; ++p) {
        const int64_t heads = 24 / parts;
        targets.push_back({out[i % kCopies].at(p * bytes / parts),
                           out[i % kCopies].at(bytes + p * 2 * bytes / parts), p * heads, heads});
      }
      Placement p{.norm_q = Norm::kRms, .norm_k = Norm::kRms, .weight_q = mod.at(0), .weight_k = mod.at(256)};
      Source* sources[3] = {&p.q, &p.k, &p.v};
      for (int64_t s = 0; s < 3; ++s)
        *sources[s] = {in[i % kCopies].at(s * width * 2), 3 * width, 3 * width, 128};
      p.cos = static_cast<const float*>(table.at(0)), p.sin = static_cast<const float*>(table.at(n * 64 * 4));
      p.n = n, p.batch = 1, p.heads = 24, p.head_dim = 128, p.targets = targets;
      p.is_e4m3 = is_e4m3;
      place(device(), t, p);
    };
    const std::string what = std::string("place 4608x24x128 bf16") + (is_e4m3 ? " to e4m3" : "") +
                             ", targets: " + std::to_string(parts);
    report(what.c_str(), (is_e4m3 ? 4.5 : 6) * bytes + n * 128 * 4, microseconds(kRepeats, run));
  }
}

}  // namespace
}  // namespace atelier::kernels
