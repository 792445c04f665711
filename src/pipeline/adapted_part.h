// A component that is loaded, and whose adapters may change between requests.
#pragma once
#include <memory>

#include "nn/manifest.h"
#include "nn/memory.h"
#include "nn/reread.h"
#include "weights/adapted_store.h"

namespace atelier::pipeline {

class AdaptedPart {
 public:
  explicit AdaptedPart(std::unique_ptr<weights::WeightStore> weights, weights::Changes changes = {})
      : store_(std::move(weights), std::move(changes)) {}

  const weights::WeightStore& store() const { return store_; }
  // What was read of the store, once everything has been.
  void hold(const nn::Manifest& manifest) { manifest_ = manifest; }
  // From now on these adapters and no others: reads what differs, in place. Throws Error(kCheckpoint).
  nn::Reread adapt(weights::Changes changes, nn::BlockMemory& memory);

 private:
  weights::AdaptedStore store_;
  nn::Manifest manifest_;
};

}  // namespace atelier::pipeline
