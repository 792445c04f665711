#include "nn/call_context.h"

#include <algorithm>

namespace atelier::nn {

int64_t CallContext::tokens(std::span<const int> which, int rank, std::optional<int> of_patch) const {
  int64_t n = 0;
  for (const int stream : which) n += streams[static_cast<size_t>(stream)].count(rank, of_patch);
  return n;
}

bool CallContext::is_on_one_rank(std::span<const int> which) const {
  return std::all_of(which.begin(), which.end(),
                     [&](int stream) { return streams[static_cast<size_t>(stream)].seq_parts == 1; });
}

}  // namespace atelier::nn
