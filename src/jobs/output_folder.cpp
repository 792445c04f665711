// Atomic writes relative to a directory handle.
#include "jobs/output_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/process_state.h"
#include "request/names.h"

namespace atelier::jobs {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& file, int error) {
  const std::string what = str("cannot write ", file.string(), ": ");
  if (error == ENOSPC || error == EDQUOT) {
    throw Error(Kind::kCapacity,
                what + "the disk is full; free some space and run again, finished pictures are kept");
  }
  if (error == ELOOP || error == ENOTDIR) {
    throw Error(Kind::kItem,
                what + "a part of the name is a symbolic link or a file, where a folder is needed");
  }
  if (error == EISDIR || error == ENAMETOOLONG) throw Error(Kind::kItem, what + std::strerror(error));
  throw Error(Kind::kUsage, str(what, std::strerror(error), "; choose another output_dir or mend this one"));
}

class Handle {
 public:
  explicit Handle(int fd) : fd_(fd) {}
  ~Handle() {
    if (fd_ >= 0) ::close(fd_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::string host() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  std::string text;
  for (const char* c = name.data(); *c != '\0'; ++c)
    text.push_back(std::isalnum(static_cast<unsigned char>(*c)) ? *c : '_');
  return text.substr(0, 64);
}

// Containers of one host number their processes apart: "4026531836".
std::string number_space() {
  std::error_code error;
  std::string digits;
  for (const char c : fs::read_symlink("/proc/self/ns/pid", error).string())
    if (std::isdigit(static_cast<unsigned char>(c))) digits.push_back(c);
  return digits;
}

std::string temporary_prefix() {
  static const std::string prefix = str(request::kTemporaryPrefix, host(), "-", number_space(), "-");
  return prefix;
}

// A file, or a folder with what it holds.
void remove_in(int folder, const std::string& name) {
  if (::unlinkat(folder, name.c_str(), 0) == 0 || errno != EISDIR) return;
  std::error_code ignored;
  fs::remove_all(fs::path(str("/proc/self/fd/", folder)) / name, ignored);
}

// One that has ended but that nobody has waited for yet writes no more either.
bool has_ended(pid_t process) {
  const char state = process_state(process);
  return state == 'Z' || state == 'X' || (::kill(process, 0) != 0 && errno == ESRCH);
}

// Removes temporary files of this host's processes that no longer live.
void remove_leftovers(int folder) {
  const int copy = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = copy >= 0 ? ::fdopendir(copy) : nullptr;
  if (listing == nullptr) {
    if (copy >= 0) ::close(copy);
    return;
  }
  const std::string prefix = temporary_prefix();
  while (const dirent* entry = ::readdir(listing)) {
    const std::string_view name = entry->d_name;
    if (!name.starts_with(prefix) || !name.ends_with(".tmp")) continue;
    int pid = 0;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), pid);
    if (pid > 0 && has_ended(pid)) remove_in(folder, entry->d_name);
  }
  ::closedir(listing);
}

int write_temporary(int folder, const std::string& name, std::string_view bytes) {
  const int fd = ::openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0) return errno;
  const int error = write_to_disk(fd, bytes);
  return ::close(fd) != 0 && error == 0 ? errno : error;
}

int write_files(int folder, const std::string& name,
                const std::vector<std::pair<std::string, std::string>>& files) {
  if (::mkdirat(folder, name.c_str(), 0755) != 0) return errno;
  const Handle inside(::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (inside.get() < 0) return errno;
  for (const auto& [file, bytes] : files) {
    if (const int error = write_temporary(inside.get(), file, bytes)) return error;
  }
  return ::fsync(inside.get()) == 0 ? 0 : errno;
}

// Where something has the name already, it changes places with the new one and is removed.
int take_place(int folder, const std::string& temporary, const std::string& name) {
  if (::renameat(folder, temporary.c_str(), folder, name.c_str()) == 0) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return errno;
  if (::renameat2(folder, temporary.c_str(), folder, name.c_str(), RENAME_EXCHANGE) != 0) return errno;
  remove_in(folder, temporary);
  return 0;
}

}  // namespace

std::string temporary_name() {
  static std::atomic<int> next{0};
  return str(temporary_prefix(), ::getpid(), "-", next++, ".tmp");
}

bool is_temporary_of(std::string_view name, pid_t process) {
  return name.starts_with(str(temporary_prefix(), process, "-")) && name.ends_with(".tmp");
}

OutputFolder::OutputFolder(const fs::path& folder) : path_(folder) {
  if (folder.empty())
    throw Error(Kind::kUsage, "the output folder has an empty name; choose another output_dir, such as out");
  std::error_code error;
  fs::create_directories(folder, error);
  handle_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle_ < 0) {
    throw Error(Kind::kUsage,
                str("cannot use the output folder ", folder.string(), ": ",
                    error ? error.message() : std::strerror(errno), "; choose another output_dir"));
  }
  // permissions alone do not tell about read-only and full disks
  const std::string probe = temporary_name();
  const int failed = write_temporary(handle_, probe, "?");
  ::unlinkat(handle_, probe.c_str(), 0);
  if (failed != 0) {
    ::close(handle_);
    fail(folder, failed);
  }
}

OutputFolder::~OutputFolder() {
  ::close(handle_);
}

int OutputFolder::open_parent(const fs::path& parent) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  int fd = ::openat(handle_, ".", kFlags);
  if (fd < 0) fail(path_, errno);
  for (const fs::path& part : parent) {
    const Handle above(fd);
    if (::mkdirat(fd, part.c_str(), 0755) != 0 && errno != EEXIST) fail(path_ / parent, errno);
    fd = ::openat(fd, part.c_str(), kFlags);
    if (fd < 0) fail(path_ / parent, errno);
  }
  Handle result(fd);
  const std::scoped_lock lock(mutex_);
  if (cleaned_.insert(parent.string()).second) remove_leftovers(fd);
  return result.release();
}

void OutputFolder::write(std::string_view name, std::string_view bytes) {
  request::check_name(name);
  const fs::path file(name);
  const Handle folder(open_parent(file.parent_path()));
  const std::string temporary = temporary_name();
  int error = write_temporary(folder.get(), temporary, bytes);
  if (error == 0 && ::renameat(folder.get(), temporary.c_str(), folder.get(), file.filename().c_str()) != 0)
    error = errno;
  if (error != 0) {
    ::unlinkat(folder.get(), temporary.c_str(), 0);
    fail(path_ / file, error);
  }
}

void OutputFolder::write_folder(std::string_view name,
                                const std::vector<std::pair<std::string, std::string>>& files) {
  request::check_name(name);
  const fs::path path(name);
  const Handle folder(open_parent(path.parent_path()));
  const std::string temporary = temporary_name();
  int error = write_files(folder.get(), temporary, files);
  if (error == 0) error = take_place(folder.get(), temporary, path.filename().string());
  if (error == 0) return;
  remove_in(folder.get(), temporary);
  fail(path_ / path, error);
}

}  // namespace atelier::jobs
