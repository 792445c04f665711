// Reading and writing whole files. Writes are atomic: a temporary file beside the target, fsync, rename.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace atelier {

// "PATH: what the system said", without the standard library's own words.
std::string problem_of(const std::filesystem::filesystem_error& e);

// Throws Error(kUsage) naming the file.
std::string read_file(const std::filesystem::path& file);
// Writes all of it and waits for the disk. Returns 0, or what errno said.
int write_to_disk(int fd, std::string_view bytes);
// Creates missing folders. Throws Error(kCapacity) when the disk is full, Error(kUsage) when not writable;
// leaves no temporary file behind.
void write_file_atomically(const std::filesystem::path& file, std::string_view bytes);

}  // namespace atelier
