// Sums of equal-sized buffers, for all_reduce on the CPU.
#include "comm/sum.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "base/check.h"

namespace atelier::comm {
namespace {

template <class T, class Sum>
void add_typed(void* out, std::span<const void* const> parts, int64_t count) {
  constexpr int64_t kBlock =
      512;  // elements summed at a time, so that the running sum stays in the first cache
  Sum sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = count - begin < kBlock ? count - begin : kBlock;
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<Sum>(static_cast<const T*>(parts[0])[begin + i]);
    for (const void* const other : parts.subspan(1)) {
      const auto* const part = static_cast<const T*>(other) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] += static_cast<Sum>(part[i]);
    }
    for (int64_t i = 0; i < n; ++i) static_cast<T*>(out)[begin + i] = static_cast<T>(sum[i]);
  }
}

}  // namespace

void add_parts(void* out, std::span<const void* const> parts, int64_t count, c10::ScalarType dtype) {
  ENSURE(!parts.empty());
  switch (dtype) {
    case c10::ScalarType::Float:
      return add_typed<float, float>(out, parts, count);
    case c10::ScalarType::Double:
      return add_typed<double, double>(out, parts, count);
    case c10::ScalarType::BFloat16:
      return add_typed<c10::BFloat16, float>(out, parts, count);
    case c10::ScalarType::Half:
      return add_typed<c10::Half, float>(out, parts, count);
    case c10::ScalarType::Long:
      return add_typed<int64_t, int64_t>(out, parts, count);
    case c10::ScalarType::Int:
      return add_typed<int32_t, int32_t>(out, parts, count);
    case c10::ScalarType::Byte:
      return add_typed<uint8_t, uint8_t>(out, parts, count);
    default:
      ENSURE(false && "a dtype that all_reduce can sum");
  }
}

}  // namespace atelier::comm
