// The seams of a model that runs whole on one rank: encoders, autoencoders, shapes on no device.
#pragma once
#include "nn/attention.h"
#include "nn/builder.h"
#include "nn/memory.h"
#include "nn/sdpa.h"

namespace atelier::nn {

// Lives as long as what is built with it.
struct SingleRank {
  SingleRank() = default;
  // One of several ranks that cut features, without the others.
  SingleRank(int tensor_rank, int tensor_size) {
    seams.tensor_rank = tensor_rank;
    seams.tensor_size = tensor_size;
  }
  SingleRank(const SingleRank&) = delete;

  LocalExchange exchange;
  Sdpa attention;
  Resident memory;
  Seams seams{.exchange = &exchange, .attention = &attention};

  Builder builder(const weights::WeightStore& store, const at::TensorOptions& options) {
    return {store, seams, memory, options};
  }
};

}  // namespace atelier::nn
