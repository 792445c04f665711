// Other weights into the memory of a model that is loaded already: addresses stay, so recorded graphs do too.
#pragma once
#include <cstdint>
#include <functional>
#include <set>
#include <string>

#include "nn/manifest.h"
#include "nn/memory.h"

namespace atelier::nn {

struct Reread {
  int64_t tensors = 0, bytes = 0;  // written
};

// Reads the tensors of these canonical names anew, wherever their home is; nothing may run meanwhile. A block
// of which a rank keeps a share is read in that share.
Reread reread(const Manifest& manifest, BlockMemory& memory, const weights::WeightStore& store,
              const std::set<std::string, std::less<>>& names);

}  // namespace atelier::nn
