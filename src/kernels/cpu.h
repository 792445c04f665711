// The CPU twins: one thread, in order, no allocation.
#pragma once
#include "kernels/calls.h"

namespace atelier::kernels::cpu {

void norm_modulate(const NormModulateCall& call);
void norm_modulate_e4m3(const NormModulateE4m3Call& call);
void quantise_e4m3(const QuantiseE4m3Call& call);
void gated_add(const GatedAddCall& call);
void gelu_tanh(const GeluCall& call);
void gated_gelu(const GatedGeluCall& call);
void softmax(const SoftmaxCall& call);
void group_moments(const GroupMomentsCall& call);
void group_norm(const GroupNormCall& call);
void channel_norm(const ChannelNormCall& call);
void add_pixels(const AddPixelsCall& call);
void weave(const WeaveCall& call);
void place(const PlaceCall& call);
void place_e4m3(const PlaceCall& call);

}  // namespace atelier::kernels::cpu
