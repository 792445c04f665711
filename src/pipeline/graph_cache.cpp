#include "pipeline/graph_cache.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace atelier::pipeline {

void GraphCache::run(const GraphKey& key, const std::function<void()>& body) {
  if (!backend_) return body();
  auto& e = entries_[key];
  if (e.graph && e.generation != backend_->generation()) e.graph = nullptr;
  if (e.graph) return backend_->replay(*e.graph, body);
  if (!e.is_warm || e.is_broken) {
    body();  // libraries set themselves up
    e.is_warm = true;
    return;
  }
  e.is_broken = true;
  e.generation = backend_->generation();
  try {
    e.graph = backend_->record(key.buffers, body);
  } catch (const c10::OutOfMemoryError&) {
    return body();  // outside of a recording the allocator may give back what it holds unused
  }
  e.is_broken = false;
  backend_->replay(*e.graph, body);
}

void GraphCache::forget(int buffers) {
  std::erase_if(entries_, [&](const auto& one) { return one.first.buffers == buffers; });
}

int64_t GraphCache::bytes(int buffers) const {
  int64_t most = 0;
  for (auto at = entries_.lower_bound({.buffers = buffers}); at != entries_.end(); ++at) {
    if (at->first.buffers != buffers) break;
    if (at->second.graph) most = std::max(most, at->second.graph->bytes());
  }
  return most;
}

int GraphCache::captured() const {
  return static_cast<int>(std::count_if(entries_.begin(), entries_.end(),
                                        [](const auto& one) { return one.second.graph != nullptr; }));
}

#ifndef ATELIER_CUDA
std::unique_ptr<GraphBackend> cuda_graphs() {
  return nullptr;
}
#endif

}  // namespace atelier::pipeline
