// CUDA graphs behind GraphBackend.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "pipeline/graph_cache.h"

namespace atelier::pipeline {
namespace {

// The allocator's memory for recordings: gone with the last of them, and not to be used again then.
struct Pool {
  at::cuda::MempoolId_t id = at::cuda::graph_pool_handle();
};

struct CudaGraph : Graph {
  explicit CudaGraph(std::shared_ptr<Pool> p) : pool(std::move(p)) {}
  std::shared_ptr<Pool> pool;
  at::cuda::CUDAGraph graph;
};

class CudaGraphs : public GraphBackend {
 public:
  std::unique_ptr<Graph> record(const std::function<void()>& body) override;
  void replay(Graph& graph, const std::function<void()>&) override {
    static_cast<CudaGraph&>(graph).graph.replay();
  }

 private:
  std::weak_ptr<Pool> pool_;
  // One stream for all recordings: the allocator lends memory again only within a stream.
  std::optional<c10::cuda::CUDAStream> side_;
};

std::unique_ptr<Graph> CudaGraphs::record(const std::function<void()>& body) {
  auto pool = pool_.lock();
  if (!pool) pool_ = pool = std::make_shared<Pool>();
  if (!side_) side_ = c10::cuda::getStreamFromPool();
  auto recorded = std::make_unique<CudaGraph>(pool);
  const c10::cuda::CUDAStreamGuard guard(*side_);
  // The allocator's cache stays as it is: to free memory waits for the device, which may have posted a receive for what
  // a peer can only send when it has heard from here.
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
  return recorded;
}

}  // namespace

std::unique_ptr<GraphBackend> cuda_graphs() {
  return std::make_unique<CudaGraphs>();
}

}  // namespace atelier::pipeline
