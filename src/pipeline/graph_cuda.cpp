// CUDA graphs behind GraphBackend.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <optional>

#include "kernels/graph_fills.h"
#include "nn/tuned_product.h"
#include "pipeline/graph_cache.h"

namespace atelier::pipeline {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

// The allocator's memory for recordings on some buffers: gone with the last of them, and not to be
// used again then.
struct Pool {
  const at::cuda::MempoolId_t id = at::cuda::graph_pool_handle();
  int64_t bytes = 0;

  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    try {
      // Nobody else can use it. Waits for the device, which is the process' only one: threads as
      // ranks record nothing.
      allocator::emptyCache(id);
    } catch (const std::exception&) {  // of a device that has failed
    }
  }
  void measure() {
    bytes = 0;
    for (const auto& segment : allocator::snapshot(id, false).segments)
      bytes += static_cast<int64_t>(segment.total_size);
  }
};

struct CudaGraph : Graph {
  explicit CudaGraph(std::shared_ptr<Pool> p) : pool(std::move(p)) {}
  int64_t bytes() const override { return pool->bytes; }
  const std::shared_ptr<Pool> pool;
  at::cuda::CUDAGraph graph{true};  // instantiated apart from its recording
};

class CudaGraphs : public GraphBackend {
 public:
  std::unique_ptr<Graph> record(int buffers, const std::function<void()>& body) override;
  void replay(Graph& graph, const std::function<void()>&) override {
    static_cast<CudaGraph&>(graph).graph.replay();
  }
  int64_t generation() const override {
    return nn::product_generation({c10::kCUDA, c10::cuda::current_device()});
  }

 private:
  std::map<int, std::weak_ptr<Pool>> pools_;  // by buffers
  // One stream for all recordings: the allocator lends memory again only within a stream.
  std::optional<c10::cuda::CUDAStream> side_;
};

std::unique_ptr<Graph> CudaGraphs::record(int buffers, const std::function<void()>& body) {
  std::erase_if(pools_, [](const auto& one) { return one.second.expired(); });
  auto pool = pools_[buffers].lock();
  if (!pool) pools_[buffers] = pool = std::make_shared<Pool>();
  if (!side_) side_ = c10::cuda::getStreamFromPool();
  auto recorded = std::make_unique<CudaGraph>(pool);
  const c10::cuda::CUDAStreamGuard guard(*side_);
  // The allocator's cache stays as it is: to free it waits for all devices of the process, also for those of
  // ranks that have posted a receive for what is sent from here.
  recorded->graph.capture_begin(pool->id, cudaStreamCaptureModeThreadLocal);
  try {
    body();
  } catch (...) {
    try {
      recorded->graph.capture_end();  // or this thread would go on recording
    } catch (const std::exception&) {
    }
    throw;
  }
  recorded->graph.capture_end();
  kernels::fills_to_kernels(recorded->graph.raw_cuda_graph());
  recorded->graph.instantiate();
  pool->measure();
  return recorded;
}

}  // namespace

std::unique_ptr<GraphBackend> cuda_graphs() {
  return std::make_unique<CudaGraphs>();
}

}  // namespace atelier::pipeline
