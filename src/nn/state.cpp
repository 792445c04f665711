#include "nn/state.h"

namespace atelier::nn {

at::Tensor State::stream(int i) const {
  int64_t begin = 0;
  for (int k = 0; k < i; ++k) begin += n[static_cast<size_t>(k)];
  return x.narrow(0, begin, n[static_cast<size_t>(i)]);
}

}  // namespace atelier::nn
