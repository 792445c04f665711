// The order in which each stage embeds, runs, sends, receives and samples: PipeFusion and the plain layer
// pipeline as data. Pure arithmetic on integers, so every rank computes the same lists without talking.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "plan/route.h"

namespace atelier::plan {

// One entry of a stage's list. The hop of chunk l carries the output of l to the stage of chunk l+1; the hop
// of the last chunk carries the prediction back to the stage of chunk 0, which holds the latents, applies the
// guidance and runs the sampler. Between two chunks on one stage there is no hop and no kSend/kRecv.
struct Op {
  enum Code : uint8_t {
    kEmbed,   // chunk 0: latents of the patch -> hidden state
    kRun,     // the blocks of `chunk`
    kSend,    // hop of `chunk`, to peer_stage
    kRecv,    // hop of `chunk`, from peer_stage
    kHead,    // last chunk: hidden state -> prediction, just before its hop
    kSample,  // chunk 0: guidance and one sampler step for the patch
  } kind = kEmbed;
  int chunk = 0;
  int patch = -1;  // -1: the whole sequence
  int step = 0;
  int peer_stage = -1;  // kSend and kRecv only
  bool operator==(const Op&) const = default;
};

// One list per stage. The first `warmup` steps (at most `steps`), and all steps if patches is 1, run the
// whole sequence, one step after another. Later steps run patch by patch: patch p of step s+1 enters as soon
// as patch p of step s was sampled. Every chunk sees its patches in the order (step, patch), whatever the
// route, so that attention to stale keys and values gives the same numbers for every number of stages.
// patches, steps >= 1; warmup >= 0.
//
// What the executor of a list must provide:
// 1. It starts the operations in the order of the list.
// 2. Each direction between two stages (see directions()) has its own communicator and, on CUDA, its own
//    stream for each end. Messages of one direction arrive in the order of their sends, which is also the
//    order of their receives; one in flight per direction is enough.
// 3. kSend begins once the operations before it are done (an event of the compute stream) and does not hold
//    up those after it. kRecv begins at once and does not hold up those after it either; the kRun of chunk+1
//    or the kSample that reads the message waits for it (an event of the receive stream, Work::wait).
// 4. Each hop has one send buffer and one receive buffer per patch, and one of each for the whole sequence.
//    No buffer is written before its last reader is done, without further waiting: patch p of step s+1
//    enters only after patch p of step s was sampled, and by then its messages have been received and read
//    on every stage.
// An executor that instead waits in kSend for its receiver and in kRecv for its sender is slower, but also
// comes to the end: the lists are cut from one global order in which each send stands next to its receive.
std::vector<std::vector<Op>> schedule(std::span<const ModelChunk> route, int patches, int steps, int warmup);

// An ordered pair of stages that some hop of the route uses: one communicator each.
struct Direction {
  int from = 0, to = 0;
  bool operator==(const Direction&) const = default;
};
// All directions of a route, each once, in the order of the first hop that uses it.
std::vector<Direction> directions(std::span<const ModelChunk> route);

}  // namespace atelier::plan
