// A whole pipeline under its recorded call.
#pragma once
#include "verify/golden_cases.h"

namespace atelier::verify {

// Draws the call of golden.json from the recorded noise, with everybody listening. Throws Error(kUsage,
// kCheckpoint).
Produced produce_pipeline(const VerifyOptions& options, const Json& golden, const Tensors& recorded);

}  // namespace atelier::verify
