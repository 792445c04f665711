// The sum that CPU groups compute: one order and one rounding, so that every transport and rank gets the same
// bits.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <span>

namespace atelier::comm {

// out[i] = parts[0][i] + parts[1][i] + ... for `count` elements; bf16 and f16 are added in float and rounded
// once. out may be one of the parts. Throws std::logic_error for a dtype that cannot be summed.
void add_parts(void* out, std::span<const void* const> parts, int64_t count, c10::ScalarType dtype);

}  // namespace atelier::comm
