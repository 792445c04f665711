// The CPU twins: one thread, in order, no allocation.
#pragma once
#include "kernels/calls.h"

namespace atelier::kernels::cpu {

void norm_modulate(const NormModulateCall& call);
void gated_add(const GatedAddCall& call);
void gelu_tanh(const GeluCall& call);
void place(const PlaceCall& call);

}  // namespace atelier::kernels::cpu
