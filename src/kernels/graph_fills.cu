#include "kernels/graph_fills.h"

#include <vector>

#include "kernels/device.cuh"

namespace atelier::kernels {
namespace {

template <class T>
__global__ void fill(T* to, T value, unsigned long long count) {
  const auto step = static_cast<unsigned long long>(gridDim.x) * blockDim.x;
  for (auto i = static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    to[i] = value;
}

void check_graph(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("a recorded graph could not be changed: ") +
                             cudaGetErrorString(error));
}

// The nodes before one, or behind it.
#if CUDART_VERSION >= 13000
constexpr auto kBefore = &cudaGraphNodeGetDependencies;
constexpr auto kBehind = &cudaGraphNodeGetDependentNodes;
#else
constexpr auto kBefore = &cudaGraphNodeGetDependencies_v2;
constexpr auto kBehind = &cudaGraphNodeGetDependentNodes_v2;
#endif

// False where an edge is more than "starts when that has ended".
bool neighbours(decltype(kBefore) which, cudaGraphNode_t node, std::vector<cudaGraphNode_t>& nodes) {
  size_t count = 0;
  check_graph(which(node, nullptr, nullptr, &count));
  nodes.resize(count);
  std::vector<cudaGraphEdgeData> edges(count);
  if (count > 0) check_graph(which(node, nodes.data(), edges.data(), &count));
  return std::all_of(edges.begin(), edges.end(), [](const auto& e) {
    return e.from_port == 0 && e.to_port == 0 && e.type == cudaGraphDependencyTypeDefault;
  });
}

template <class T>
cudaGraphNode_t add_fill(cudaGraph_t graph, const std::vector<cudaGraphNode_t>& before,
                         const cudaMemsetParams& p) {
  constexpr int kThreads = 256;
  constexpr unsigned long long kMostBlocks = 512;
  auto* to = static_cast<T*>(p.dst);
  auto value = static_cast<T>(p.value);
  auto count = static_cast<unsigned long long>(p.width);
  void* arguments[] = {&to, &value, &count};
  cudaKernelNodeParams kernel = {};
  kernel.func = reinterpret_cast<void*>(&fill<T>);
  kernel.gridDim = dim3(static_cast<unsigned>(std::clamp((count + kThreads - 1) / kThreads, 1ull, kMostBlocks)));
  kernel.blockDim = dim3(kThreads);
  kernel.kernelParams = arguments;
  cudaGraphNode_t added = nullptr;
  check_graph(cudaGraphAddKernelNode(&added, graph, before.data(), before.size(), &kernel));
  return added;
}

bool replace(cudaGraph_t graph, cudaGraphNode_t node) {
  cudaMemsetParams p = {};
  check_graph(cudaGraphMemsetNodeGetParams(node, &p));
  std::vector<cudaGraphNode_t> before, behind;
  if (p.height != 1 || !neighbours(kBefore, node, before) || !neighbours(kBehind, node, behind)) return false;
  cudaGraphNode_t added = nullptr;
  if (p.elementSize == 4) {
    added = add_fill<uint32_t>(graph, before, p);
  } else if (p.elementSize == 2) {
    added = add_fill<uint16_t>(graph, before, p);
  } else {
    added = add_fill<uint8_t>(graph, before, p);
  }
  const std::vector<cudaGraphNode_t> from(behind.size(), added);
#if CUDART_VERSION >= 13000
  check_graph(cudaGraphAddDependencies(graph, from.data(), behind.data(), nullptr, behind.size()));
#else
  check_graph(cudaGraphAddDependencies(graph, from.data(), behind.data(), behind.size()));
#endif
  check_graph(cudaGraphDestroyNode(node));
  return true;
}

}  // namespace

int fills_to_kernels(void* recorded) {
  auto* const graph = static_cast<cudaGraph_t>(recorded);
  size_t count = 0;
  check_graph(cudaGraphGetNodes(graph, nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  if (count > 0) check_graph(cudaGraphGetNodes(graph, nodes.data(), &count));
  int replaced = 0;
  for (auto* node : nodes) {
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    check_graph(cudaGraphNodeGetType(node, &type));
    if (type == cudaGraphNodeTypeMemset && replace(graph, node)) ++replaced;
  }
  return replaced;
}

}  // namespace atelier::kernels
