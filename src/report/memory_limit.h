// What a container leaves of the machine: control groups of both versions.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>

namespace atelier::report {

// Bytes that this process's control group and those around it may still take, page cache
// counted as free; none without a limit. membership: /proc/self/cgroup; mounts: /sys/fs/cgroup.
// [kernel: admin-guide/cgroup-v2, cgroup-v1/memory]
std::optional<int64_t> memory_left(const std::filesystem::path& membership,
                                   const std::filesystem::path& mounts);

// Processes and threads that may still be started, by the same groups; none without a limit.
std::optional<int64_t> processes_left(const std::filesystem::path& membership,
                                      const std::filesystem::path& mounts);

inline const std::filesystem::path kMembership = "/proc/self/cgroup", kMounts = "/sys/fs/cgroup";

}  // namespace atelier::report
