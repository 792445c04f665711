// Fuzzes the reader of safetensors headers: it accepts or throws Error(kCheckpoint), and what it accepts is consistent.
// The input is two bytes that say how many bytes of tensors follow the header, then the header.
#include "weights/safetensors.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

using namespace atelier;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_accepted(const weights::Entries& entries, int64_t begin, int64_t end) {
  std::vector<std::pair<int64_t, int64_t>> places;
  for (const auto& [name, e] : entries) {
    int64_t elements = 1;
    for (const int64_t n : e.shape) {
      require(n >= 0);
      require(!__builtin_mul_overflow(elements, n, &elements));
    }
    require(e.bytes == elements * weights::size_of(e.dtype));
    require(e.offset >= begin && e.offset + e.bytes <= end);
    places.emplace_back(e.offset, e.offset + e.bytes);
  }
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t k = i + 1; k < places.size() && i < 50; ++k) {
      require(places[i].second <= places[k].first || places[k].second <= places[i].first);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int64_t tensor_bytes = data[0] + 256 * data[1];
  const std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
  weights::Entries entries;
  weights::FileMetadata metadata;
  try {
    weights::parse_header("fuzz.safetensors", header, tensor_bytes, entries, metadata);
  } catch (const Error& e) {
    require(e.kind() == Kind::kCheckpoint && std::string_view(e.what()).starts_with("fuzz.safetensors"));
    return 0;
  }
  const auto begin = static_cast<int64_t>(8 + header.size());
  check_accepted(entries, begin, begin + tensor_bytes);
  return 0;
}
