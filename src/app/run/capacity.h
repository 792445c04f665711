// Whether there is room for a run before it starts: processes, weights of every rank, pictures of every row.
#pragma once
#include "app/run/run_spec.h"
#include "base/model_facts.h"

namespace atelier::app {

// Of this machine, or of the container around it.
struct Room {
  int64_t host_bytes = 0;    // free; 0: unknown
  int64_t device_bytes = 0;  // of one GPU, in all; 0: unknown
  int cores = 1;
  int64_t processes = 0;  // and threads that may be started; 0: unknown
};
Room room_here(const DeviceChoice& device);

// Throws Error(kCapacity) for more ranks on the CPU than this machine carries.
void check_ranks(int ranks, const Room& room);

// Of a set that spec's engine is to draw, rows of files whose picture cannot be held go to the bad ones.
// Throws Error(kCapacity) with the bytes of every rank and part and the smallest change that fits, as a
// command, where the weights cannot be held, a batch cannot, or no picture is left.
void check_memory(const RunSpec& spec, RequestSet& set, const Resolved& resolved, const Room& room);

// --memory auto: turns on what the run needs beyond what was asked for, in the order in which it costs time:
// pictures of a batch decoded one by one, encoders in host memory, all parts, tiles, the denoiser's blocks
// too. Returns a sentence that says what; where nothing helps all stays as it is, and check_memory says why.
std::string choose_memory(RunSpec& spec, const Resolved& resolved, const Room& room);

// The command to try after memory ran out while so many pictures of this one's size were drawn at a time.
std::string advice_for_memory(const RunSpec& spec, const Resolved& resolved, const request::Request& failed,
                              int64_t batch);

}  // namespace atelier::app
