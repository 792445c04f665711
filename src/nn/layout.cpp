#include "nn/layout.h"

#include <algorithm>

namespace atelier::nn {

std::vector<Range> Layout::held(int seq_rank, std::optional<int> patch) const {
  const int64_t units = (patches.total + unit - 1) / unit;
  const auto share = [&](Range strip) {
    const Range mine = Partition{strip.size, seq_parts}[seq_rank];
    const int64_t begin = std::min((strip.begin + mine.begin) * unit, patches.total);
    return Range{begin, std::min(begin + mine.size * unit, patches.total) - begin};
  };
  if (pinned_to_first_patch) {
    if (patch && *patch > 0) return {};
    return {share({0, units})};
  }
  const int first = patch.value_or(0), last = patch ? *patch : patches.parts - 1;
  std::vector<Range> ranges;
  for (int p = first; p <= last; ++p) ranges.push_back(share(Partition{units, patches.parts}[p]));
  return ranges;
}

int64_t Layout::count(int seq_rank, std::optional<int> patch) const {
  int64_t n = 0;
  for (const Range& r : held(seq_rank, patch)) n += r.size;
  return n;
}

}  // namespace atelier::nn
