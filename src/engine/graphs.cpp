#include "engine/graphs.h"

#include <map>

#ifdef ATELIER_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace atelier::engine {

#ifdef ATELIER_CUDA

struct Graphs::Cache {
  struct Entry {
    int calls = 0;
    std::unique_ptr<at::cuda::CUDAGraph> graph;
  };
  GraphMode mode = GraphMode::kOff;
  std::map<std::string, Entry> entries;
  at::cuda::MempoolId_t pool{0, 0};
};

Graphs::Graphs(GraphMode mode) : cache_(std::make_unique<Cache>()) { cache_->mode = mode; }
Graphs::~Graphs() = default;

void Graphs::run(const std::string& key, const std::function<void()>& body) {
  if (cache_->mode == GraphMode::kOff) return body();
  auto& e = cache_->entries[key];
  if (e.graph) return e.graph->replay();
  if (++e.calls == 1) return body();  // libraries set themselves up
  if (cache_->pool == at::cuda::MempoolId_t{0, 0}) cache_->pool = at::cuda::graph_pool_handle();
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  const auto outer = c10::cuda::getCurrentCUDAStream();
  const auto side = c10::cuda::getStreamFromPool();
  {
    outer.synchronize();
    const c10::cuda::CUDAStreamGuard guard(side);
    graph->capture_begin(cache_->pool, cudaStreamCaptureModeThreadLocal);
    body();
    graph->capture_end();
  }
  e.graph = std::move(graph);
  e.graph->replay();
}

void Graphs::clear() {
  cache_->entries.clear();
  cache_->pool = {0, 0};
}

int Graphs::captured() const {
  int n = 0;
  for (const auto& [key, e] : cache_->entries) n += e.graph ? 1 : 0;
  return n;
}

#else

struct Graphs::Cache {};
Graphs::Graphs(GraphMode) : cache_(std::make_unique<Cache>()) {}
Graphs::~Graphs() = default;
void Graphs::run(const std::string&, const std::function<void()>& body) { body(); }
void Graphs::clear() {}
int Graphs::captured() const { return 0; }

#endif

}  // namespace atelier::engine
