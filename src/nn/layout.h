// Which tokens a rank holds during one call, as arithmetic. Constant for a whole call.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "base/partition.h"

namespace atelier::nn {

// One token stream (text, image, ...), or the rows of one picture.
struct Layout {
  Partition patches;                   // PipeFusion strips of the tokens; one patch when off
  int seq_parts = 1;                   // ring x K/V gather x Ulysses
  bool pinned_to_first_patch = false;  // text: not cut into patches, travels with patch 0
  int64_t unit = 1;  // tokens that may not be split (a row of pixels); the last may be fewer

  // The global token ranges that sequence rank `seq_rank` holds, in order: of one patch, or of all of them.
  std::vector<Range> held(int seq_rank, std::optional<int> patch) const;
  int64_t count(int seq_rank, std::optional<int> patch) const;
};

}  // namespace atelier::nn
