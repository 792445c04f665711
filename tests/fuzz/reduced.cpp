// Fuzzes what is made of the names of scales and of their markers: understood or refused by Error(kCheckpoint). The
// input is two bytes that say how long the header is, the header of a safetensors file, then its tensors.
#include "weights/reduced.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "weights/safetensors.h"

using namespace atelier;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_understood(const weights::Reduced& reduced, const weights::Entries& entries) {
  for (const auto& [weight, scale] : reduced.scale_of) {
    require(entries.contains(weight) && entries.contains(scale) && reduced.marks.contains(scale));
    require(!weights::is_integer(entries.at(weight).dtype) && weights::is_plain(entries.at(scale).dtype));
    int64_t numbers = 1;
    for (const int64_t n : entries.at(scale).shape) numbers *= n;
    require(numbers == 1 || numbers == entries.at(weight).shape.at(0));
  }
  for (const auto& mark : reduced.marks) require(entries.contains(mark));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto header = all.substr(0, data[0] + 256u * data[1]);
  const auto tensors = all.substr(header.size());
  weights::Entries entries;
  weights::FileMetadata metadata;
  try {
    weights::parse_header("fuzz", header, static_cast<int64_t>(tensors.size()), entries, metadata);
    const auto begin = static_cast<int64_t>(8 + header.size());
    const auto reduced = weights::find_reduced("fuzz", entries, metadata, [&](const weights::TensorEntry& e) {
      require(e.offset >= begin && e.bytes <= 1 << 16);
      return std::string(tensors.substr(static_cast<size_t>(e.offset - begin), static_cast<size_t>(e.bytes)));
    });
    check_understood(reduced, entries);
  } catch (const Error& e) {
    require(e.kind() == Kind::kCheckpoint && std::string_view(e.what()).starts_with("fuzz"));
  }
  return 0;
}
