#include "pipeline/adapted_part.h"

#include <c10/core/InferenceMode.h>

namespace atelier::pipeline {

nn::Reread AdaptedPart::adapt(weights::Changes changes, nn::BlockMemory& memory) {
  const c10::InferenceMode guard;
  unread_.merge(weights::Changes::differing(store_.changes(), changes));
  store_.adapt(std::move(changes));
  if (unread_.empty()) return {};
  const auto done = nn::reread(manifest_, memory, store_, unread_);
  unread_.clear();
  memory.release();
  store_.check();
  return done;
}

}  // namespace atelier::pipeline
