// A bug on purpose: a product of two digits' powers that leaves the range of int.
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int product = 1;
  for (size_t i = 0; i < size && data[i] >= '0' && data[i] <= '9'; ++i) product *= data[i] - '0' + 1;
  volatile int kept = product;
  static_cast<void>(kept);
  return 0;
}
