// Fills in recorded graphs.
#pragma once

namespace atelier::kernels {

// Puts kernels in place of the fills (cudaMemset) of a recorded graph that is not yet instantiated; returns
// how many. Products of cuBLASLt clear a counter before they start, and a fill among kernels holds the stream
// up for 6 us where a kernel takes 2 (H200, CUDA 13). graph: a cudaGraph_t. Throws std::runtime_error. CUDA
// only.
int fills_to_kernels(void* graph);

}  // namespace atelier::kernels
