// FlashAttention-3 (Shah et al., arXiv 2407.08608), from the package fa3-fwd: a library on torch's stable
// interface that is opened at its first use where it lies beside torch, or where ATELIER_FA3 says.
#pragma once
#include <string>

#include "nn/attention.h"

namespace atelier::nn {

// Why it cannot attend to such tensors on this machine, empty where it can: bfloat16, or e4m3 without scales,
// on a GPU of compute capability 9, heads of at most 256 numbers in steps of 8, of e4m3 in steps of 16.
std::string hopper_attention_problem(c10::Device device, at::ScalarType type, int64_t head_width);
// q, k, v: [B, h, n, d] in any order of memory with the last dimension together. The result is bfloat16.
// Throws std::runtime_error where hopper_attention_problem says that it cannot.
AttentionOutput hopper_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

// Why it failed at run time, so that this process attends by other kernels; empty: it has not.
std::string hopper_attention_failure();

}  // namespace atelier::nn
