// Conversion between element types on the CPU, and the search for NaN and infinity. Inside of the room.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace atelier::weights {

struct Elements {
  void* data;
  at::ScalarType dtype;
  std::byte* at(int64_t element) const;
};

// Any thread; never starts threads of its own.
void convert(Elements to, Elements from, int64_t count);
// Whether any of these is NaN or infinite; false for integers.
bool has_non_finite(Elements elements, int64_t count);

}  // namespace atelier::weights
