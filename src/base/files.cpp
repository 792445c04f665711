#include "base/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <ios>

#include "base/error.h"

namespace atelier {
namespace fs = std::filesystem;

std::string problem_of(const fs::filesystem_error& e) {
  return (e.path1().empty() ? "" : e.path1().string() + ": ") + e.code().message();
}

std::string read_file(const fs::path& file) {
  constexpr size_t kMost = size_t{1} << 30, kMostOfADevice = size_t{256} << 20, kChunk = size_t{1} << 16;
  std::ifstream in(file, std::ios::binary);
  const int error = errno;
  std::error_code none;
  const auto status = fs::status(file, none);
  if (!in || fs::is_directory(status)) {
    throw Error(Kind::kUsage, str("cannot read ", file.string(), ": ",
                                  fs::is_directory(status) ? "it is a folder" : std::strerror(error)));
  }
  const size_t most = fs::is_regular_file(status) ? kMost : kMostOfADevice;
  std::string bytes;
  for (size_t n = kChunk; n == kChunk;) {
    const size_t had = bytes.size();
    bytes.resize(had + kChunk);
    try {
      n = static_cast<size_t>(in.rdbuf()->sgetn(bytes.data() + had, kChunk));
    } catch (const std::ios_base::failure&) {  // a disk that fails, a file that only some processes may read
      throw Error(Kind::kUsage, str("cannot read ", file.string(), ": it fails after ", had,
                                    " bytes: ", std::strerror(errno)));
    }
    bytes.resize(had + n);
    if (bytes.size() > most) {
      throw Error(Kind::kUsage, str("cannot read ", file.string(), ": it gives more than ", most >> 20,
                                    " MiB: is it the file that was meant?"));
    }
  }
  return bytes;
}

namespace {

[[noreturn]] void fail(const fs::path& file, int error) {
  const Kind kind = error == ENOSPC || error == EDQUOT ? Kind::kCapacity : Kind::kUsage;
  throw Error(kind, str("cannot write ", file.string(), ": ", std::strerror(error),
                        kind == Kind::kCapacity ? "; free some space and run again, finished files are kept"
                                                : "; choose another folder or mend its permissions"));
}

}  // namespace

int write_to_disk(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return ::fsync(fd) == 0 ? 0 : errno;
}

void write_file_atomically(const fs::path& file, std::string_view bytes) {
  std::error_code ignored;
  if (file.has_parent_path()) fs::create_directories(file.parent_path(), ignored);
  static std::atomic<uint64_t> next{0};  // several threads may write one file
  const fs::path temporary = file.string() + str(".", ::getpid(), "-", next++, ".tmp");
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail(file, errno);
  int error = write_to_disk(fd, bytes);
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(temporary.c_str(), file.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    fail(file, error);
  }
}

}  // namespace atelier
