// Whether a run's device and layout have what its kernels are asked for.
#pragma once
#include "app/run/run_spec.h"

namespace atelier::app {

// Throws Error(kUsage) where the device does not have what the tier or the attention kernel needs, or where
// what is asked for is not deterministic though it was to be.
void check_kernels(const Resolved& resolved, const RunSpec& spec);

}  // namespace atelier::app
