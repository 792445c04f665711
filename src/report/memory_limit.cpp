#include "report/memory_limit.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"

namespace atelier::report {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kUnlimited = int64_t{1} << 60;  // version 1 writes the largest number of pages for "none"

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

// None for "max", for a number that stands for none, and where there is no file.
std::optional<int64_t> number_in(const fs::path& file) {
  const auto value = to_integer(trim(first_line(file)));
  return value && *value < kUnlimited ? value : std::nullopt;
}

// Sum of the values behind these keys in "key value" lines.
int64_t sum_in(const fs::path& file, std::initializer_list<std::string_view> keys) {
  std::ifstream in(file);
  int64_t sum = 0, value = 0;
  for (std::string key; in >> key >> value;) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) sum += value;
  }
  return sum;
}

// The folder of a controller's group and those above it. A container often sees its own group as the root.
std::vector<fs::path> groups(const fs::path& membership, const fs::path& mounts,
                             std::string_view controller) {
  std::vector<fs::path> out;
  const auto add = [&](const fs::path& root, std::string_view group) {
    fs::path at = fs::path(group).relative_path();
    for (; !at.empty(); at = at.parent_path()) out.push_back(root / at);
    out.push_back(root);
  };
  std::ifstream in(membership);
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      group = line.substr(second + 1);
    if (controllers.empty()) add(mounts, group), add(mounts / "unified", group);
    if (("," + controllers + ",").find("," + std::string(controller) + ",") == std::string::npos) continue;
    add(mounts / controllers, group);
    add(mounts / controller, group);
  }
  return out;
}

void keep_least(std::optional<int64_t>& least, const std::optional<int64_t>& limit, int64_t used) {
  if (limit) least = std::min(least.value_or(kUnlimited), std::max<int64_t>(0, *limit - used));
}

}  // namespace

std::optional<int64_t> memory_left(const fs::path& membership, const fs::path& mounts) {
  std::optional<int64_t> least;
  for (const auto& group : groups(membership, mounts, "memory")) {
    const fs::path stat = group / "memory.stat";
    if (const auto limit = number_in(group / "memory.max")) {
      const int64_t cache = sum_in(stat, {"inactive_file", "active_file", "slab_reclaimable"});
      keep_least(least, limit, number_in(group / "memory.current").value_or(0) - cache);
    }
    if (const auto limit = number_in(group / "memory.limit_in_bytes")) {
      const int64_t cache = sum_in(stat, {"total_inactive_file", "total_active_file"});
      keep_least(least, limit, number_in(group / "memory.usage_in_bytes").value_or(0) - cache);
    }
  }
  return least;
}

std::optional<int64_t> processes_left(const fs::path& membership, const fs::path& mounts) {
  std::optional<int64_t> least;
  for (const auto& group : groups(membership, mounts, "pids"))
    keep_least(least, number_in(group / "pids.max"), number_in(group / "pids.current").value_or(0));
  return least;
}

}  // namespace atelier::report
