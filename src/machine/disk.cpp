#include "machine/disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <sstream>
#include <vector>

namespace atelier::machine {
namespace fs = std::filesystem;
namespace {

constexpr std::array kNetworkTypes{"nfs",          "nfs4",        "cifs",      "smb3",         "smbfs",
                                   "lustre",       "ceph",        "gpfs",      "beegfs",       "glusterfs",
                                   "afs",          "9p",          "virtiofs",  "fuse.sshfs",   "fuse.s3fs",
                                   "fuse.gcsfuse", "fuse.rclone", "fuse.ceph", "fuse.juicefs", "wekafs"};

// Spaces and tabs of a mount point are written as \040 and \011. [proc(5), fstab(5)]
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_octal = text[i] == '\\' && i + 3 < text.size() &&
                          std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                      text.begin() + static_cast<std::ptrdiff_t>(i) + 4,
                                      [](char c) { return c >= '0' && c <= '7'; });
    if (!is_octal) {
      out += text[i];
      continue;
    }
    out += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
    i += 3;
  }
  return out;
}

// Whether `path` is `mount` or lies in it, by whole names.
bool is_within(const fs::path& path, const fs::path& mount) {
  const auto [at, end] = std::mismatch(mount.begin(), mount.end(), path.begin(), path.end());
  return at == mount.end() || (std::next(at) == mount.end() && at->empty());
}

}  // namespace

std::optional<FileSystem> file_system_of(const fs::path& path, const fs::path& mounts) {
  std::error_code error;
  fs::path here = fs::absolute(path, error);
  while (!fs::exists(here, error) && here.has_relative_path()) here = here.parent_path();
  const fs::path real = fs::weakly_canonical(here, error);
  std::ifstream table(mounts);
  std::optional<FileSystem> found;
  size_t depth = 0;
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string device, point, type;
    if (!(words >> device >> point >> type)) continue;
    const fs::path mount = unescaped(point);
    const auto names = static_cast<size_t>(std::distance(mount.begin(), mount.end()));
    if (!is_within(real, mount) || names < depth) continue;
    depth = names;
    found = FileSystem{.type = type};
  }
  if (!found) return found;
  found->is_network =
      std::find(kNetworkTypes.begin(), kNetworkTypes.end(), found->type) != kNetworkTypes.end();
  const auto space = fs::space(real, error);
  if (!error)
    found->free = static_cast<int64_t>(space.available), found->size = static_cast<int64_t>(space.capacity);
  return found;
}

std::optional<double> write_rate(const fs::path& folder, int64_t bytes) {
  std::string name = (folder / ".atelier-write-XXXXXX").string();
  const int file = ::mkstemp(name.data());
  if (file < 0) return std::nullopt;
  const std::vector<char> block(size_t{4} << 20, 'a');
  const auto begin = std::chrono::steady_clock::now();
  int64_t written = 0;
  while (written < bytes) {
    const auto n =
        ::write(file, block.data(), std::min<size_t>(block.size(), static_cast<size_t>(bytes - written)));
    if (n <= 0) break;
    written += n;
  }
  const bool is_out = ::fsync(file) == 0 && written == bytes;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  ::close(file);
  ::unlink(name.c_str());
  if (!is_out) return std::nullopt;
  return static_cast<double>(bytes) / std::max(seconds.count(), 1e-9);
}

}  // namespace atelier::machine
