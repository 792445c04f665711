// Attention for heads wider than fused kernels take: an autoencoder's one head over all its channels.
#pragma once
#include "nn/attention.h"

namespace atelier::nn {

// Two products with a softmax between them, on CUDA in half types, a run of queries at a time; scores in
// float. Scale 1/sqrt(d), no mask. q [B, h, n, d], k, v [B, h, m, d], m > 0. Returns out [B, h, n, d] whose
// memory is [n, B, h, d], and the log-sum-exp.
AttentionOutput wide_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace atelier::nn
