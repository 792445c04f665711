// What every transport must do, written once: the tests run it over threads, over sockets and over GPUs.
#pragma once
#include <c10/core/Device.h>

#include "comm/comm.h"

namespace atelier::comm::exercises {

// Every verb with every dtype, even, uneven and zero splits, on one group of all ranks. Throws
// std::runtime_error on the first wrong number. Every rank calls it.
void every_verb(Transport& transport, c10::Device device);
// Many overlapping groups at once, with work in flight on all of them.
void many_groups(Transport& transport, c10::Device device);
// Sums whose rounding depends on the order: this rank's result, to be compared bit by bit with the others'.
void same_bits_everywhere(Transport& transport, c10::Device device);
// Events against arithmetic.
void events(Transport& transport, c10::Device device);

}  // namespace atelier::comm::exercises
