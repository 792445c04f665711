// How long the algorithms of cuBLASLt take, and products by the fastest.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/ops/_addmm_activation.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <stdexcept>

#include "base/error.h"
#include "nn/lt_product.h"
#include "nn/tuned_product.h"

namespace atelier::nn {
namespace {

constexpr double kLeastOperations = 1e9;  // a product of fewer takes less time than it costs to launch it

// Memory that torch's allocator does not see: it is needed while nothing else is, and then given back.
class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes) {
    if (cudaMalloc(&data_, static_cast<size_t>(bytes)) != cudaSuccess) {
      cudaGetLastError();
      throw std::runtime_error("no memory to measure a product in");
    }
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  at::Tensor tensor(at::IntArrayRef sizes, at::ScalarType type, c10::Device device) const {
    return at::from_blob(data_, sizes, at::TensorOptions(type).device(device));
  }

 private:
  void* data_ = nullptr;
};

// A model may be loading beside: what is free is its.
void expect_room_for(int64_t bytes) {
  size_t free = 0, all = 0;
  if (cudaMemGetInfo(&free, &all) != cudaSuccess || free < static_cast<size_t>(bytes) + all / 8)
    throw std::runtime_error("too little memory is free to measure a product");
}

class Event {
 public:
  Event() { cudaEventCreate(&event_); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record() { cudaEventRecord(event_, at::cuda::getCurrentCUDAStream()); }
  // Waits for it, and takes the time since the other.
  double us_since(const Event& begin) const {
    float ms = 0;
    if (cudaEventSynchronize(event_) != cudaSuccess ||
        cudaEventElapsedTime(&ms, begin.event_, event_) != cudaSuccess)
      throw std::runtime_error("a product that was to be measured failed");
    return 1000.0 * ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// Some runs of a product as a graph: what launches cost the host does not count, as in the steps of a
// picture.
class RecordedRuns {
 public:
  static constexpr int kRuns = 8;
  template <class Body>
  explicit RecordedRuns(const Body& body) {
    const auto stream = at::cuda::getCurrentCUDAStream();
    expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      for (int i = 0; i < kRuns; ++i) body();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph_);  // or this stream would go on recording
      if (graph_ != nullptr) cudaGraphDestroy(graph_);
      throw;
    }
    expect(cudaStreamEndCapture(stream, &graph_));
    const auto status = cudaGraphInstantiate(&runs_, graph_, 0);
    cudaGraphDestroy(graph_);
    expect(status);
  }
  ~RecordedRuns() { cudaGraphExecDestroy(runs_); }
  RecordedRuns(const RecordedRuns&) = delete;
  RecordedRuns& operator=(const RecordedRuns&) = delete;
  double us_of_one(Event& begin, Event& end) const {
    begin.record();
    expect(cudaGraphLaunch(runs_, at::cuda::getCurrentCUDAStream()));
    end.record();
    return end.us_since(begin) / kRuns;
  }

 private:
  static void expect(cudaError_t status) {
    if (status != cudaSuccess)
      throw std::runtime_error(str("a product cannot be recorded: ", cudaGetErrorString(status)));
  }
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t runs_ = nullptr;
};

// What torch does of itself.
void library_choice(const ProductShape& shape, at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
                    const at::Tensor& bias) {
  switch (shape.epilogue) {
    case Epilogue::kNone:
      at::mm_out(y, x, w.t());
      break;
    case Epilogue::kBias:
      at::addmm_out(y, bias, x, w.t());
      break;
    case Epilogue::kBiasGelu:
      at::_addmm_activation_out(y, bias, x, w.t(), 1, 1, true);
      break;
    case Epilogue::kAdd:
      y.addmm_(x, w.t());
      break;
  }
}

// Runs everything on a stream of its own. Numbers are random: products of zeros need less power and are
// faster.
class LtMeasurer : public ProductMeasurer {
 public:
  explicit LtMeasurer(c10::Device device) : device_(device) {}

  std::optional<ProductAlgorithm> fastest(const ProductShape& shape,
                                          const std::function<bool()>& may_go_on) override {
    const c10::InferenceMode guard;
    const c10::cuda::CUDAGuard device(device_);
    const c10::cuda::CUDAStreamGuard stream(side_stream());
    const auto bytes_of = [&](int64_t rows, int64_t cols) { return rows * cols * 2; };
    const int64_t of_x = bytes_of(shape.rows, shape.in), of_y = bytes_of(shape.rows, shape.out),
                  of_w = bytes_of(shape.out, shape.weight_stride), of_bias = bytes_of(shape.out, 1);
    expect_room_for(of_x + of_w + of_bias + 2 * of_y);
    const DeviceMemory x_memory(of_x), w_memory(of_w), bias_memory(of_bias), own_memory(of_y), y_memory(of_y);
    const auto x = x_memory.tensor({shape.rows, shape.in}, shape.type, device_);
    const auto rows_of_w = w_memory.tensor({shape.out, shape.weight_stride}, shape.type, device_);
    const auto w = rows_of_w.narrow(1, 0, shape.in);
    const auto bias = bias_memory.tensor({shape.out}, shape.type, device_);
    auto own = own_memory.tensor({shape.rows, shape.out}, shape.type, device_);
    const auto y = y_memory.tensor({shape.rows, shape.out}, shape.type, device_);
    auto generator =
        at::cuda::detail::createCUDAGenerator(device_.index());  // the device's own is not touched
    for (auto one : {x, rows_of_w, bias}) one.normal_(0, 1, generator);
    own.zero_();
    library_choice(shape, own, x, w, bias);

    LtProduct product(shape);
    const LtProduct::Operands operands{x.const_data_ptr(), w.const_data_ptr(), bias.const_data_ptr(),
                                       y.data_ptr()};
    std::vector<std::string> same;
    for (auto& one : product.proposals()) {
      if (!may_go_on()) return std::nullopt;
      y.zero_();
      product.run(operands, one);
      if (y.view(at::kShort).equal(own.view(at::kShort))) same.push_back(std::move(one));
    }
    std::vector<std::unique_ptr<RecordedRuns>> runs;
    runs.push_back(std::make_unique<RecordedRuns>([&] { library_choice(shape, own, x, w, bias); }));
    for (const auto& one : same)
      runs.push_back(std::make_unique<RecordedRuns>([&] { product.run(operands, one); }));
    // In turns, so that a clock that changes meanwhile concerns all alike.
    std::vector<std::vector<double>> us(runs.size());
    for (int round = 0; round < kRounds; ++round) {
      for (size_t i = 0; i < runs.size(); ++i) {
        if (!may_go_on()) return std::nullopt;
        us[i].push_back(runs[i]->us_of_one(begin_, end_));
      }
    }
    ProductAlgorithm best;
    best.own_us = best.best_us = median(us[0]);
    for (size_t i = 0; i < same.size(); ++i) {
      const double time = median(us[i + 1]);
      if (time < best.best_us) best.best_us = time, best.bytes = same[i];
    }
    return best;
  }

 private:
  static constexpr int kRounds = 7;

  c10::cuda::CUDAStream side_stream() {
    if (!stream_) stream_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device_.index());
    return *stream_;
  }

  static double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                     values.end());
    return values[values.size() / 2];
  }
  const c10::Device device_;
  std::optional<c10::cuda::CUDAStream> stream_;
  Event begin_, end_;
};

constexpr size_t kMostDevices = 64;
std::array<std::atomic<ProductTuner*>, kMostDevices> tuners;

ProductTuner* tuner_of(c10::Device device) {
  const auto index = static_cast<size_t>(std::max<int>(device.index(), 0));
  return device.is_cuda() && index < kMostDevices ? tuners[index].load() : nullptr;
}

std::filesystem::path table_of(c10::Device device, const std::filesystem::path& folder) {
  if (folder.empty()) return {};
  std::string gpu = at::cuda::getDeviceProperties(device.index())->name;
  for (auto& c : gpu) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return folder / str("products-", gpu, "-cublasLt-", cublaslt_version(), ".txt");
}

bool is_aligned(const at::Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
}

struct Found {
  ProductShape shape;
  ProductAlgorithm algorithm;
};

// None: not for these algorithms, or the library's own choice is the best.
std::optional<Found> find(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias,
                          Epilogue epilogue) {
  const bool is_half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  if (!x.is_cuda() || !is_half || x.scalar_type() != w.scalar_type()) return std::nullopt;
  auto* const tuner = tuner_of(x.device());
  if (tuner == nullptr || !x.is_contiguous() || w.stride(1) != 1 || w.stride(0) % 8 != 0 || w.size(1) == 0)
    return std::nullopt;
  const ProductShape shape{x.scalar_type(), epilogue,  x.numel() / w.size(1),
                           w.size(1),       w.size(0), w.stride(0)};
  const double operations =
      2.0 * static_cast<double>(shape.rows) * static_cast<double>(shape.in) * static_cast<double>(shape.out);
  if (operations < kLeastOperations || shape.in % 8 != 0 || shape.out % 8 != 0) return std::nullopt;
  if (!is_aligned(x) || !is_aligned(w)) return std::nullopt;
  if (bias.defined() && (!bias.is_contiguous() || !is_aligned(bias) || bias.scalar_type() != x.scalar_type()))
    return std::nullopt;
  auto algorithm = tuner->algorithm(shape);
  if (!algorithm) return std::nullopt;
  return Found{shape, std::move(*algorithm)};
}

// False: the library refuses the algorithm, as one of a damaged table, and chooses itself from now on.
bool multiply(const Found& found, const at::Tensor& y, const at::Tensor& x, const at::Tensor& w,
              const at::Tensor& bias) {
  try {
    LtProduct(found.shape)
        .run({x.const_data_ptr(), w.const_data_ptr(), bias.defined() ? bias.const_data_ptr() : nullptr,
              y.data_ptr()},
             found.algorithm.bytes);
    return true;
  } catch (const std::runtime_error&) {
    tuner_of(x.device())->leave_to_library(found.shape);
    return false;
  }
}

}  // namespace

TunedProducts::TunedProducts(c10::Device device, const std::filesystem::path& folder) : device_(device) {
  if (!device.is_cuda() || cublaslt_version() == 0) return;
  if (!device_.has_index()) device_.set_index(c10::cuda::current_device());
  const auto index = static_cast<size_t>(device_.index());
  if (index >= kMostDevices) return;
  tuner_ = std::make_unique<ProductTuner>(std::make_unique<LtMeasurer>(device_),
                                          ProductTuner::TunerOptions{table_of(device_, folder)});
  tuners[index] = tuner_.get();
}

TunedProducts::~TunedProducts() {
  if (tuner_) tuners[static_cast<size_t>(device_.index())] = nullptr;
}

at::Tensor tuned_product(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias,
                         Epilogue epilogue) {
  const auto found = find(x, w, bias, epilogue);
  if (!found) return {};
  auto sizes = x.sizes().vec();
  sizes.back() = w.size(0);
  auto y = at::empty(sizes, x.options());
  return multiply(*found, y, x, w, bias) ? y : at::Tensor();
}

bool add_tuned_product_(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w) {
  if (!y.is_contiguous() || !is_aligned(y) || y.scalar_type() != x.scalar_type()) return false;
  const auto found = find(x, w, {}, Epilogue::kAdd);
  return found && multiply(*found, y, x, w, {});
}

int64_t product_generation(c10::Device device) {
  const auto* tuner = tuner_of(device);
  return tuner == nullptr ? 0 : tuner->generation();
}

}  // namespace atelier::nn
