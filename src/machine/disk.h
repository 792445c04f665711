// The file system behind a folder: what it is, what is free, how fast it takes what is written.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace atelier::machine {

struct FileSystem {
  std::string type;            // as /proc/self/mounts names it: ext4, nfs4, overlay
  bool is_network = false;     // its files are another machine's
  int64_t free = 0, size = 0;  // bytes
};

// Of the deepest mount that holds the path, or its nearest parent that exists. mounts: a table in the form of
// /proc/self/mounts. None where the table does not say.
std::optional<FileSystem> file_system_of(const std::filesystem::path& path,
                                         const std::filesystem::path& mounts = "/proc/self/mounts");

// Writes so many bytes to a new file in the folder, forces them out and removes the file; bytes/s. None where
// it cannot be written.
std::optional<double> write_rate(const std::filesystem::path& folder, int64_t bytes);

}  // namespace atelier::machine
