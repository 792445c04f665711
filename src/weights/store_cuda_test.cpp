// The store on a GPU: the same numbers as on the CPU.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>

#include "base/testing.h"
#include "weights/safetensors_writer.h"
#include "weights/store.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;

class StoreCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no GPU";
    at::globalContext().lazyInitDevice(at::kCUDA);
  }
  // Reads the same slice to the CPU and to the GPU.
  static void expect_same(const WeightStore& store, std::string_view name, std::vector<int64_t> full,
                          std::vector<Range> rows, std::vector<Range> cols, at::ScalarType dtype) {
    auto shape = full;
    if (!rows.empty()) shape[0] = rows[0].size + (rows.size() > 1 ? rows[1].size : 0);
    if (!cols.empty()) shape[1] = cols[0].size + (cols.size() > 1 ? cols[1].size : 0);
    at::Tensor on_cpu = at::empty(shape, at::TensorOptions(dtype));
    at::Tensor on_gpu = at::empty(shape, at::TensorOptions(dtype).device(at::kCUDA));
    store.read_into(on_cpu, name, full, rows, cols);
    store.read_into(on_gpu, name, full, rows, cols);
    EXPECT_TRUE(at::equal(on_gpu.cpu(), on_cpu)) << name << " as " << at::toString(dtype);
  }
  TemporaryFolder folder_;
};

TEST_F(StoreCuda, EveryTypeAndSliceIsThatOfTheCpu) {
  const at::Tensor big = at::randn({3000, 4100});  // several buffers
  Tensors t;
  for (const auto dtype :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    t[at::toString(dtype)] = big.to(dtype);
  }
  t["odd"] = at::full({7}, 1, at::TensorOptions(at::kByte));
  write_tensors(folder_ / "model.safetensors", t);
  const auto store = WeightStore::open(folder_.path());
  for (const auto& [name, _] : t) {
    if (name == "odd") continue;
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      expect_same(*store, name, {3000, 4100}, {}, {}, dtype);
      expect_same(*store, name, {3000, 4100}, {{17, 2500}, {3, 1}}, {}, dtype);
      expect_same(*store, name, {3000, 4100}, {{17, 900}}, {{1, 1000}, {4000, 100}}, dtype);
    }
  }
  expect_same(*store, "odd", {7}, {{1, 5}}, {}, at::kFloat);
  store->check();
}

TEST_F(StoreCuda, ManyTensorsOnTwoStreamsKeepTheirNumbers) {
  Tensors t;
  for (int i = 0; i < 400; ++i) t[str("t", i)] = at::randn({64, 640 + i});
  write_tensors(folder_ / "model.safetensors", t);
  const auto store = WeightStore::open(folder_.path());
  std::map<std::string, at::Tensor> read;
  const auto other = c10::cuda::getStreamFromPool();
  for (int round = 0; round < 3; ++round) {
    for (const auto& [name, value] : t) {
      const bool is_other = (name.back() + round) % 3 == 0;
      const c10::cuda::CUDAStreamGuard guard(is_other ? other : c10::cuda::getDefaultCUDAStream());
      auto& out = read[name] = at::empty(value.sizes(), at::TensorOptions(at::kBFloat16).device(at::kCUDA));
      store->read_into(out, name, value.sizes(), {}, {});
    }
    store->check();  // waits
    for (const auto& [name, value] : t)
      ASSERT_TRUE(at::equal(read[name].cpu(), value.to(at::kBFloat16))) << name;
  }
}

TEST_F(StoreCuda, NanAndInfinityAreFoundOnTheDevice) {
  const at::Tensor fine = at::full({100, 100}, 3e38), nan = fine.clone(), infinite = fine.clone();
  nan.data_ptr<float>()[77] = NAN;
  infinite.data_ptr<float>()[5] = -std::numeric_limits<float>::infinity();
  write_tensors(folder_ / "model.safetensors", {{"fine", fine}, {"nan", nan}, {"infinite", infinite}});
  const auto store = WeightStore::open(folder_.path());
  const auto load = [&](const char* name, at::ScalarType dtype) {
    at::Tensor out = at::empty({100, 100}, at::TensorOptions(dtype).device(at::kCUDA));
    store->read_into(out, name, {100, 100}, {}, {});
  };
  load("fine", at::kFloat);
  load("fine", at::kBFloat16);
  store->check();
  load("nan", at::kBFloat16);
  load("infinite", at::kFloat);
  load("fine", at::kHalf);  // beyond half precision
  const auto message = message_of(Kind::kCheckpoint, [&] { store->check(); });
  for (const char* name : {"\"nan\"", "\"infinite\"", "\"fine\""}) {
    EXPECT_THAT(message, HasSubstr(std::string(name) + " holds NaN or infinity"));
  }
}

TEST_F(StoreCuda, DummySlicesAgreeWithTheWhole) {
  const auto a = WeightStore::dummy(3), b = WeightStore::dummy(3);
  const auto options = at::TensorOptions(at::kBFloat16).device(at::kCUDA);
  at::Tensor whole = at::empty({4000, 3000}, options), part = at::empty({1500, 7}, options);
  a->read_into(whole, "w.weight", {4000, 3000}, {}, {});
  const Range rows{1300, 1500}, cols{100, 7};
  b->read_into(part, "w.weight", {4000, 3000}, std::span(&rows, 1), std::span(&cols, 1));
  EXPECT_TRUE(at::equal(part, whole.narrow(0, 1300, 1500).narrow(1, 100, 7)));
  EXPECT_NEAR(whole.to(at::kFloat).std().item<double>() * std::sqrt(3000.0), 1, 0.01);
}

int64_t anonymous_megabytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == "RssAnon:" && status >> kilobytes) return kilobytes / 1024;
  }
  return -1;
}

// Not part of the suite: writes 8 GB and prints how fast they load. Run with --gtest_also_run_disabled_tests.
TEST_F(StoreCuda, DISABLED_LoadSpeed) {
  constexpr int kTensors = 128;
  const std::vector<int64_t> shape{4096, 8192};  // 64 MiB in bfloat16
  std::vector<TensorSpec> specs;
  for (int i = 0; i < kTensors; ++i) specs.push_back({str("t", i, ".weight"), DType::kBF16, shape});
  const at::Tensor values = at::randn({4096, 8192}).to(at::kBFloat16);
  ShardedWriter writer({folder_.path(), "model", 5'000'000'000}, specs);
  for (int i = 0; i < kTensors; ++i) {
    writer.append({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  }
  writer.finish();
  for (const auto dtype : {at::kBFloat16, at::kBFloat16, at::kFloat}) {
    for (const bool is_cut : {false, true}) {
      const auto store = WeightStore::open(folder_.path());
      const Range cols{1024, is_cut ? 1024 : 8192};
      std::vector<at::Tensor> out;
      const auto start = std::chrono::steady_clock::now();
      for (const auto& p : specs) {
        out.push_back(at::empty({4096, is_cut ? 1024 : 8192}, at::TensorOptions(dtype).device(at::kCUDA)));
        store->read_into(out.back(), p.name, shape, {}, {&cols, is_cut ? size_t{1} : size_t{0}});
      }
      store->check();
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      std::cout << "as " << at::toString(dtype) << (is_cut ? ", an eighth of the columns: " : ", whole: ")
                << kTensors * 4096.0 * (is_cut ? 1024 : 8192) * 2 / seconds.count() / 1e9
                << " GB/s, anonymous host memory " << anonymous_megabytes() << " MiB\n";
    }
  }
}

}  // namespace
}  // namespace atelier::weights
