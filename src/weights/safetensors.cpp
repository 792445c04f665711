#include "weights/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace atelier::weights {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw Error(Kind::kCheckpoint, str(path.string(), ": ", what));
}

// What a file that is no safetensors file may be instead.
std::string guess(std::string_view start) {
  if (start.starts_with("version https://git-lfs"))
    return "it is a Git LFS pointer: run git lfs pull, or download it";
  if (start.starts_with("PK") || start.starts_with("\x80\x02")) {
    return "it is a PyTorch pickle, which could run code: convert it to safetensors";
  }
  if (start.starts_with("<")) return "it is a web page: download the file again";
  return "it is not a safetensors file, or it is damaged: download it again";
}

}  // namespace

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept {
  *this = std::move(other);
}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(entries_, other.entries_);
  std::swap(metadata_, other.metadata_);
  std::swap(fd_, other.fd_);
  return *this;
}

SafetensorsFile::~SafetensorsFile() {
  if (fd_ >= 0) ::close(fd_);
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a named pipe must not hang.
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) fail(path, str("cannot open it: ", std::strerror(errno)));
  struct stat status = {};
  if (::fstat(file.fd_, &status) != 0 || !S_ISREG(status.st_mode)) fail(path, "it is not a regular file");
  const int64_t size = status.st_size;
  std::array<char, 32> start{};
  const auto begin =
      std::as_writable_bytes(std::span(start)).first(std::min<size_t>(start.size(), static_cast<size_t>(size)));
  file.read(0, begin);
  const std::string_view text(start.data(), begin.size());
  if (size < 8 + 2) fail(path, str("it has only ", size, " bytes; ", guess(text)));

  uint64_t length = 0;
  std::memcpy(&length, start.data(), sizeof length);
  if (length > kMaxHeaderBytes) {
    fail(path, str("the header claims ", length, " bytes, more than ", kMaxHeaderBytes, "; ", guess(text)));
  }
  const auto header_bytes = static_cast<int64_t>(length);
  if (header_bytes > size - 8) {
    fail(path, str("truncated: the header needs ", header_bytes, " bytes, the file has ", size - 8,
                   "; ", guess(text)));
  }
  std::string header(static_cast<size_t>(header_bytes), '\0');
  file.read(8, std::as_writable_bytes(std::span(header)));
  parse_header(path.string(), header, size - 8 - header_bytes, file.entries_, file.metadata_);
  ::posix_fadvise(file.fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  return file;
}

void SafetensorsFile::read(int64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, str("cannot read it: ", std::strerror(errno)));
    if (n == 0) fail(path_, str("it ends at byte ", offset, ", it became shorter while it was read"));
    out = out.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

}  // namespace atelier::weights
