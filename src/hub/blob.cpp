#include "hub/blob.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace atelier::hub {
namespace {

[[noreturn]] void fail(const std::filesystem::path& file, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  throw Error(is_full ? Kind::kCapacity : Kind::kUsage,
              str("cannot write ", file.string(), ": ", std::strerror(error),
                  is_full ? "; free some space and run again, what was downloaded is kept" : ""));
}

}  // namespace

Digest::Digest(std::string_view name, int64_t file_bytes) : name_(name), context_(nullptr, EVP_MD_CTX_free) {
  const bool is_hex = name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  const EVP_MD* kind = !is_hex             ? nullptr
                       : name.size() == 64 ? EVP_sha256()
                       : name.size() == 40 ? EVP_sha1()
                                           : nullptr;
  if (kind == nullptr) return;
  context_.reset(EVP_MD_CTX_new());
  ENSURE(context_ && EVP_DigestInit_ex(context_.get(), kind, nullptr) == 1);
  if (name.size() != 40) return;
  const std::string head = str("blob ", file_bytes, '\0');
  add(std::as_bytes(std::span(head)));
}

void Digest::add(std::span<const std::byte> bytes) {
  if (context_) ENSURE(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

bool Digest::matches() {
  if (!context_) return true;
  std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
  unsigned size = 0;
  ENSURE(EVP_DigestFinal_ex(context_.get(), raw.data(), &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += "0123456789abcdef"[raw[i] >> 4];
    text += "0123456789abcdef"[raw[i] & 15];
  }
  return text == name_;
}

Blob::Blob(std::filesystem::path path, int64_t bytes)
    : path_(std::move(path)),
      incomplete_(path_.string() + ".incomplete"),
      bytes_(bytes),
      digest_(path_.filename().string(), bytes) {
  std::error_code ignored;
  std::filesystem::create_directories(path_.parent_path(), ignored);
  while (true) {
    fd_ = ::open(incomplete_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail(incomplete_, errno);
    while (::flock(fd_, LOCK_EX) != 0) {
      if (errno != EINTR) fail(incomplete_, errno);
    }
    // While this process waited, the file may have got its final name or may have been removed.
    struct stat mine = {}, named = {};
    const bool is_current = ::fstat(fd_, &mine) == 0 && ::stat(incomplete_.c_str(), &named) == 0 &&
                            mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
    if (is_current) break;
    ::close(std::exchange(fd_, -1));
  }
  is_done_ = std::filesystem::exists(path_);
  if (is_done_) {
    ::unlink(incomplete_.c_str());
  } else {
    resume();
  }
}

Blob::~Blob() {
  if (fd_ >= 0) ::close(fd_);
}

void Blob::resume() {
  std::vector<std::byte> buffer(1 << 20);
  while (true) {
    const ssize_t n = ::pread(fd_, buffer.data(), buffer.size(), size_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(incomplete_, errno);
    if (n == 0) break;
    digest_.add(std::span(buffer).first(static_cast<size_t>(n)));
    size_ += n;
  }
  if (size_ > bytes_) restart();
}

void Blob::restart() {
  if (::ftruncate(fd_, 0) != 0) fail(incomplete_, errno);
  size_ = 0;
  digest_ = Digest(path_.filename().string(), bytes_);
}

void Blob::append(std::span<const std::byte> bytes) {
  digest_.add(bytes);
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), size_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(incomplete_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
    size_ += n;
  }
}

bool Blob::finish() {
  if (size_ != bytes_ || !digest_.matches()) {
    restart();
    return false;
  }
  if (::fsync(fd_) != 0) fail(incomplete_, errno);
  if (::rename(incomplete_.c_str(), path_.c_str()) != 0) fail(path_, errno);
  return true;
}

}  // namespace atelier::hub
