// A bug on purpose, behind a word that the seeds almost hold: it reads one byte behind its memory.
#include <cstdint>
#include <cstring>
#include <memory>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3 || data[0] != 'b' || data[1] != 'u') return 0;
  const auto copy = std::make_unique<uint8_t[]>(size);
  std::memcpy(copy.get(), data, size);
  volatile uint8_t last = copy[size - (data[2] == 'g' ? 0 : 1)];
  static_cast<void>(last);
  return 0;
}
