// The CUDA implementations: each enqueues on `stream` (cudaStream_t) of the current device and returns.
// C++17. Throws atelier::Error when the CUDA runtime refuses the launch.
#pragma once
#include "kernels/calls.h"

namespace atelier::kernels::cuda {

void norm_modulate(void* stream, const NormModulateCall& call);
void norm_modulate_e4m3(void* stream, const NormModulateE4m3Call& call);
void quantise_e4m3(void* stream, const QuantiseE4m3Call& call);
void gated_add(void* stream, const GatedAddCall& call);
void gelu_tanh(void* stream, const GeluCall& call);
void gated_gelu(void* stream, const GatedGeluCall& call);
void softmax(void* stream, const SoftmaxCall& call);
void group_moments(void* stream, const GroupMomentsCall& call);
void group_norm(void* stream, const GroupNormCall& call);
void channel_norm(void* stream, const ChannelNormCall& call);
void add_pixels(void* stream, const AddPixelsCall& call);
void weave(void* stream, const WeaveCall& call);
void place(void* stream, const PlaceCall& call);

}  // namespace atelier::kernels::cuda
