#include "base/fingerprint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/digest.h"
#include "base/error.h"

namespace atelier {
namespace {

constexpr size_t kBegin = 1 << 20, kEnd = 1 << 16;  // bytes that are looked at of a large file

[[noreturn]] void fail(const std::filesystem::path& file) {
  throw Error(Kind::kUsage, str("cannot read ", file.string(), ": ", std::strerror(errno)));
}

// A file's bytes while it lives, and when they were changed.
class Mapped {
 public:
  explicit Mapped(const std::filesystem::path& file) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    const bool is_open = fd >= 0 && ::fstat(fd, &info) == 0;
    size_ = is_open ? static_cast<size_t>(info.st_size) : 0;
    changed_ = str(info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec);
    if (size_ > 0) at_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int why = errno;
    if (fd >= 0) ::close(fd);
    errno = why;
    if (!is_open || at_ == MAP_FAILED) fail(file);
  }
  ~Mapped() {
    if (size_ > 0 && at_ != MAP_FAILED) ::munmap(at_, size_);
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;

  std::string_view bytes() const { return {static_cast<const char*>(at_), size_}; }
  const std::string& changed() const { return changed_; }

 private:
  void* at_ = nullptr;
  size_t size_ = 0;
  std::string changed_;
};

}  // namespace

std::string fingerprint(const std::filesystem::path& file, Depth depth) {
  const Mapped mapped(file);
  const std::string_view bytes = mapped.bytes();
  if (depth == Depth::kFull || static_cast<int64_t>(bytes.size()) <= kSmallFile) return sha256(bytes);
  return sha256(str(bytes.size(), " ", mapped.changed(), "\n", bytes.substr(0, kBegin),
                    bytes.substr(bytes.size() - kEnd)));
}

}  // namespace atelier
