#include "app/run/batch_search.h"

#include <algorithm>

namespace atelier::app {

LargestBatch largest_that_fits(int64_t most, const std::function<Tried(int64_t size)>& attempt) {
  LargestBatch out;
  double best = 0;
  int64_t fails = 0;  // least size that does not fit; 0: none is known
  const auto at = [&](int64_t size) {
    const Tried tried = attempt(size);
    if (!tried.fits) {
      fails = size, out.next = tried;
      return;
    }
    out.size = size;
    if (tried.pictures_per_second > best) best = tried.pictures_per_second, out.fastest = size;
  };
  for (int64_t size = 1; fails == 0 && out.size < most; size = std::min(most, 2 * size)) at(size);
  while (fails > out.size + 1) at(out.size + (fails - out.size) / 2);
  return out;
}

}  // namespace atelier::app
