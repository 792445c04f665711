// A whole pipeline under its recorded call.
#pragma once
#include "verify/golden_cases.h"

namespace atelier::verify {

// Draws a recorded call from its noise, with everybody listening. Throws Error(kUsage, kCheckpoint).
Produced produce_pipeline(const VerifyOptions& options, const Json& call, const Tensors& recorded);

}  // namespace atelier::verify
