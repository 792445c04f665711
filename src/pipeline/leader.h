// What only the leader of a replica can do, and every rank needs: its result, or its failure, on all of them.
#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <vector>

#include "base/error.h"
#include "comm/comm.h"
#include "nn/model.h"

namespace atelier::pipeline {

// A request failed and nothing else did: every rank of the replica has given it up at the same place, so all
// of them may go on with the next request.
class RequestError : public Error {
 public:
  using Error::Error;
};

using Conditionings = std::vector<nn::Conditioning>;  // one per branch

// Runs `make` on the leader (rank 0 of the replica; null: the only rank) and gives its result to every rank,
// on `device`. Whatever it throws becomes one RequestError on all ranks; where memory is short it is tried
// once more with an empty cache, so `make` must be one that can be repeated. On a single rank only an Error
// becomes one.
Conditionings from_leader(comm::Comm* replica, c10::Device device,
                          const std::function<Conditionings()>& make);
// The same where `make` needs every rank (weights that are cut over them): all run it, alike, and the
// leader's result counts. It is tried once. What fails on another rank alone is thrown there.
Conditionings from_all(comm::Comm& replica, c10::Device device, const std::function<Conditionings()>& make);

// The header that travels before the tensors is padded to a multiple of this, in bytes.
inline constexpr int64_t kHeaderUnit = 4096;
// Each tensor begins at a multiple of this, in bytes.
inline constexpr int64_t kTensorUnit = 16;

}  // namespace atelier::pipeline
