// Plays a schedule without tensors: proves that it ends, that nothing is read before it is there, and how
// busy it keeps the stages.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "plan/schedule.h"

namespace atelier::plan {

enum class SendMode : uint8_t {
  kPosted,  // what schedule.h asks of an executor: sends and receives run beside the compute, readers wait
  kRendezvous,  // a stage stands still in kSend until its receiver is there, and in kRecv until its sender is
  kBuffered,    // sends never wait, receives wait in place
  // kPosted by a stage whose device comes to rest before each operation: with the sends and receives that
  // were started earlier all over. An allocator that gives memory back to its device, to have it cut
  // anew, waits so.
  kDrained,
};

// Durations for the whole sequence, in any one unit; a patch takes its share.
struct Costs {
  std::vector<double> chunks;  // empty: the number of blocks of each chunk
  double embed = 0, head = 0, sample = 0;
  double hop = 0;  // from the start of a transfer to its end
};

struct Simulation {
  std::string fault;  // empty: all stages came to the end of their lists and every rule of schedule.h held
  double makespan = 0;
  std::vector<double> busy;  // per stage
  // Share of the stages' time that was spent computing.
  double utilisation() const;
};

// Checks that each operation stands on the stage that owns it, that each chunk sees its patches in the order
// (step, patch), that embeds follow their sampling, runs their input and sends their run, that receives match
// the sends of their direction one to one and in order, that no buffer slot is overwritten before it was
// read, and that every step samples either the whole sequence or every patch.
Simulation simulate(std::span<const ModelChunk> route, std::span<const std::vector<Op>> lists,
                    const Costs& costs, SendMode mode);

}  // namespace atelier::plan
