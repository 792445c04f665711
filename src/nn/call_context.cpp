#include "nn/call_context.h"

namespace atelier::nn {

int64_t CallContext::tokens(std::span<const int> which, int rank, std::optional<int> of_patch) const {
  int64_t n = 0;
  for (const int stream : which) n += streams[static_cast<size_t>(stream)].count(rank, of_patch);
  return n;
}

}  // namespace atelier::nn
