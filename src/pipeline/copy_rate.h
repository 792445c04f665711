// How fast memory of one device reaches another: what a layout's messages have to live with.
#pragma once
#include <c10/core/Device.h>

#include <cstdint>

namespace atelier::pipeline {

// Of plain copies of so many bytes, each way by itself, after one that does not count: bytes/s. Between two
// GPUs over whatever joins them; on the CPU from memory to memory.
double copy_rate(c10::Device from, c10::Device to, int64_t bytes);

}  // namespace atelier::pipeline
