#include "pipeline/adapted_part.h"

#include <c10/core/InferenceMode.h>

namespace atelier::pipeline {

nn::Reread AdaptedPart::adapt(weights::Changes changes, nn::BlockMemory& memory) {
  const c10::InferenceMode guard;
  const auto names = weights::Changes::differing(store_.changes(), changes);
  store_.adapt(std::move(changes));
  if (names.empty()) return {};
  const auto done = nn::reread(manifest_, memory, store_, names);
  memory.release();
  store_.check();
  return done;
}

}  // namespace atelier::pipeline
