#include "request/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "base/error.h"

namespace atelier::request {
namespace {

constexpr size_t kStride = 64;         // records from one mark to the next
constexpr size_t kMostTail = 1 << 20;  // bytes
constexpr size_t kWindow = 1 << 16;    // bytes read at once

[[noreturn]] void fail(const std::filesystem::path& folder) {
  throw Error(Kind::kCapacity,
              str("no room for a list of pictures in ", folder.string(), ": ", std::strerror(errno),
                  "; free some space, or set TMPDIR to another folder"));
}

// A file that goes with its descriptor.
int open_nameless() {
  std::error_code error;
  auto folder = std::filesystem::temp_directory_path(error);
  if (error) folder = ".";
  int file = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0) return file;
  // some file systems know no such files
  std::string name = (folder / "atelier-XXXXXX").string();
  file = ::mkostemp(name.data(), O_CLOEXEC);
  if (file < 0) fail(folder);
  ::unlink(name.c_str());
  return file;
}

}  // namespace

Records::~Records() {
  if (file_ >= 0) ::close(file_);
}

Records::Records(Records&& other) noexcept {
  *this = std::move(other);
}

Records& Records::operator=(Records&& other) noexcept {
  std::swap(tail_, other.tail_);
  std::swap(in_file_, other.in_file_);
  std::swap(file_, other.file_);
  std::swap(size_, other.size_);
  std::swap(marks_, other.marks_);
  return *this;
}

void Records::add(std::string_view record) {
  if (size_ % kStride == 0) marks_.push_back(in_file_ + tail_.size());
  const auto count = static_cast<uint32_t>(record.size());
  tail_.append(reinterpret_cast<const char*>(&count), sizeof count);
  tail_ += record;
  ++size_;
  if (tail_.size() > kMostTail) write_out();
}

void Records::write_out() {
  if (file_ < 0) file_ = open_nameless();
  for (size_t done = 0; done < tail_.size();) {
    const ssize_t n =
        ::pwrite(file_, tail_.data() + done, tail_.size() - done, static_cast<off_t>(in_file_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(std::filesystem::temp_directory_path());
    done += static_cast<size_t>(n);
  }
  in_file_ += tail_.size();
  tail_.clear();
}

size_t Records::read(uint64_t at, char* to, size_t count) const {
  if (at >= in_file_) {
    const size_t there = tail_.size() - std::min<size_t>(tail_.size(), at - in_file_);
    count = std::min(count, there);
    std::memcpy(to, tail_.data() + (at - in_file_), count);
    return count;
  }
  count = std::min<uint64_t>(count, in_file_ - at);
  ssize_t n = 0;
  while ((n = ::pread(file_, to, count, static_cast<off_t>(at))) < 0 && errno == EINTR) {
  }
  if (n <= 0) fail(std::filesystem::temp_directory_path());
  return static_cast<size_t>(n);
}

Records::Cursor::Cursor(const Records& records, size_t first) : records_(&records) {
  if (records.marks_.empty()) return;
  const size_t mark = std::min(first / kStride, records.marks_.size() - 1);
  next_ = mark * kStride, at_ = records.marks_[mark];
  std::string skipped;
  while (next_ < first && next(skipped)) {
  }
}

bool Records::Cursor::next(std::string& record) {
  if (next_ >= records_->size_) return false;
  uint32_t count = 0;
  take(reinterpret_cast<char*>(&count), sizeof count);
  record.resize(count);
  take(record.data(), count);
  ++next_;
  return true;
}

void Records::Cursor::take(char* to, size_t count) {
  while (count > 0) {
    if (begin_ == window_.size()) {
      window_.resize(kWindow);
      window_.resize(records_->read(at_, window_.data(), kWindow));
      begin_ = 0;
      ENSURE(!window_.empty());
      at_ += window_.size();
    }
    const size_t n = std::min(count, window_.size() - begin_);
    std::memcpy(to, window_.data() + begin_, n);
    to += n, begin_ += n, count -= n;
  }
}

}  // namespace atelier::request
