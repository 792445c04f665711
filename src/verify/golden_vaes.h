// What the autoencoders of a golden folder compute: whole on one rank, or by rows on all ranks of a layout.
#pragma once
#include "verify/golden_cases.h"

namespace atelier::verify {

// Tiles and slices are always those of one rank. Throws Error(kUsage, kCheckpoint).
Produced produce_vaes(const VerifyOptions& options, const Json& golden, const Tensors& recorded);

}  // namespace atelier::verify
