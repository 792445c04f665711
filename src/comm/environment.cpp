// What NCCL and c10d are told through the environment, the only way in which they hear it.
#include <cstdlib>
#include <string_view>

#include "comm/comm.h"

namespace atelier::comm {
namespace {

struct Default {
  const char* name;
  const char* value;
  const char* old_name = nullptr;  // under which the user may have set it
};

constexpr Default kDefaults[] = {
    {"NCCL_NVLS_ENABLE", "0"},  // NVLink multicast, in NCCL and in symmetric memory: many containers may not
                                // use it, and NCCL fails there
    {"TORCH_SYMM_MEM_DISABLE_MULTICAST", "1"},
    {"NCCL_RAS_ENABLE", "0"},  // a thread and sockets for a diagnosis that the watch makes here
    // c10d's flight recorder enters each new group into a map without a lock (recordWithResetEnabled in
    // FlightRecorderDetail.hpp): ranks that are threads of one process would break it.
    {"TORCH_FR_BUFFER_SIZE", "0", "TORCH_NCCL_TRACE_BUFFER_SIZE"},
};

}  // namespace

void set_nccl_defaults() {
  for (const auto& [name, value, old_name] : kDefaults) {
    if (old_name && std::getenv(old_name)) continue;
    setenv(name, value, /*overwrite=*/0);
  }
}

}  // namespace atelier::comm
