// What a file holds, in a few letters: to know whether two files are one.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

namespace atelier {

// kFast: every byte of small files; of larger ones size, time of change, the beginning, where headers stand,
// and the end. kFull: every byte.
enum class Depth { kFast, kFull };

inline constexpr int64_t kSmallFile = 64 << 20;  // bytes

// 64 hexadecimal digits, for a small file its SHA-256 at either depth. Throws Error(kUsage) naming a file
// that cannot be read.
std::string fingerprint(const std::filesystem::path& file, Depth depth);

}  // namespace atelier
