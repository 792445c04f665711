#include "pipeline/graph_cache.h"

#include <map>
#include <optional>

#ifdef ATELIER_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#endif

namespace atelier::pipeline {

#ifdef ATELIER_CUDA

struct GraphCache::Cache {
  struct Entry {
    bool is_warm = false, is_broken = false;
    std::unique_ptr<at::cuda::CUDAGraph> graph;
  };
  GraphMode mode = GraphMode::kOff;
  std::map<std::string, Entry> entries;
  at::cuda::MempoolId_t pool{0, 0};
  // One stream for all recordings: the allocator lends memory again only within a stream.
  std::optional<c10::cuda::CUDAStream> side;

  std::unique_ptr<at::cuda::CUDAGraph> record(const std::function<void()>& body);
};

std::unique_ptr<at::cuda::CUDAGraph> GraphCache::Cache::record(const std::function<void()>& body) {
  // The allocator's cache stays as it is: to free memory waits for the device, which may have posted a
  // receive for what a peer can only send when it has heard from here.
  if (pool == at::cuda::MempoolId_t{0, 0}) pool = at::cuda::graph_pool_handle();
  if (!side) side = c10::cuda::getStreamFromPool();
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  const c10::cuda::CUDAStreamGuard guard(*side);
  graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  try {
    body();
  } catch (...) {
    try {
      graph->capture_end();  // or this thread would go on recording
    } catch (const std::exception&) {
    }
    throw;
  }
  graph->capture_end();
  return graph;
}

GraphCache::GraphCache(GraphMode mode) : cache_(std::make_unique<Cache>()) {
  cache_->mode = mode;
}
GraphCache::~GraphCache() = default;

void GraphCache::run(const std::string& key, const std::function<void()>& body) {
  if (cache_->mode == GraphMode::kOff) return body();
  auto& e = cache_->entries[key];
  if (e.graph) return e.graph->replay();
  if (!e.is_warm || e.is_broken) {
    body();  // libraries set themselves up
    e.is_warm = true;
    return;
  }
  e.is_broken = true;
  try {
    e.graph = cache_->record(body);
  } catch (const c10::OutOfMemoryError&) {
    return body();  // outside of a recording the allocator may give back what it holds unused
  }
  e.is_broken = false;
  e.graph->replay();
}

bool GraphCache::is_on() const {
  return cache_->mode != GraphMode::kOff;
}

void GraphCache::clear() {
  cache_->entries.clear();
  cache_->pool = {0, 0};
}

int GraphCache::captured() const {
  int n = 0;
  for (const auto& [key, e] : cache_->entries) n += e.graph ? 1 : 0;
  return n;
}

#else

struct GraphCache::Cache {};
GraphCache::GraphCache(GraphMode) : cache_(std::make_unique<Cache>()) {}
GraphCache::~GraphCache() = default;
void GraphCache::run(const std::string&, const std::function<void()>& body) {
  body();
}
void GraphCache::clear() {}
bool GraphCache::is_on() const {
  return false;
}
int GraphCache::captured() const {
  return 0;
}

#endif

}  // namespace atelier::pipeline
