// Weights that golden folders recorded after an adapter was merged into them.
#pragma once
#include "verify/golden_cases.h"

namespace atelier::verify {

// By their golden names. Throws Error(kUsage, kCheckpoint).
Produced produce_merged(const VerifyOptions& options, const Json& golden, const Tensors& recorded);

}  // namespace atelier::verify
