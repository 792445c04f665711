// A component that is loaded, and whose adapters may change between requests.
#pragma once
#include <memory>
#include <set>
#include <string>

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
  // From now on these adapters and no others: reads what differs, in place. Throws Error(kCheckpoint); what
  // has not been read by then is read by the next call.
  nn::Reread adapt(weights::Changes changes, nn::BlockMemory& memory);

 private:
  weights::AdaptedStore store_;
  nn::Manifest manifest_;
  std::set<std::string, std::less<>> unread_;  // what differs from the store since a reading that failed
};

}  // namespace atelier::pipeline
