// Fuzzes the reader of GGUF headers and the decoder of their blocks: the header is accepted or refused by
// Error(kCheckpoint), and what is accepted is consistent. The input is a whole file.
#include "weights/gguf.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "weights/decode.h"

using namespace atelier;

namespace {

constexpr int64_t kMostBlocks = 64;  // that are decoded of a tensor

void require(bool condition) {
  if (!condition) std::abort();
}

void check_accepted(const weights::Entries& entries, const uint8_t* data, int64_t size) {
  std::vector<std::pair<int64_t, int64_t>> places;
  for (const auto& [name, e] : entries) {
    require(weights::checked_bytes(e.dtype, e.shape) == e.bytes);
    require(e.offset >= 0 && e.bytes >= 0 && e.offset <= size && e.bytes <= size - e.offset);
    if (e.bytes > 0) places.emplace_back(e.offset, e.offset + e.bytes);
    if (!weights::can_decode(e.dtype)) continue;
    const auto block = weights::block_of(e.dtype);
    const int64_t blocks = std::min(e.bytes / block.bytes, kMostBlocks);
    std::vector<float> numbers(static_cast<size_t>(blocks * block.elements));
    weights::decode(e.dtype, reinterpret_cast<const std::byte*>(data) + e.offset, blocks, numbers.data());
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i) require(places[i - 1].second <= places[i].first);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto length = static_cast<int64_t>(size);
  if (!weights::is_gguf({reinterpret_cast<const char*>(data), size})) return 0;
  const auto read = [&](int64_t offset, std::span<std::byte> out) {
    require(offset >= 0 && offset <= length && static_cast<int64_t>(out.size()) <= length - offset);
    std::memcpy(out.data(), data + offset, out.size());
  };
  weights::Entries entries;
  weights::FileMetadata metadata;
  try {
    weights::parse_gguf("fuzz.gguf", {length, read}, entries, metadata);
  } catch (const Error& e) {
    require(e.kind() == Kind::kCheckpoint && std::string_view(e.what()).starts_with("fuzz.gguf"));
    return 0;
  }
  check_accepted(entries, data, length);
  return 0;
}
