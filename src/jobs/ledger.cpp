// Appends are one write under a file lock, so that neither a crash nor another process can mix two lines.
#include "jobs/ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <functional>

#include "base/error.h"
#include "base/parse_json.h"
#include "base/text.h"
#include "jobs/folder_claim.h"
#include "request/request.h"
#include "request/settings.h"

namespace atelier::jobs {
namespace {

// Of the bytes before those that claims of the folder lock, by the same call: NFS makes of an flock a lock of
// the whole file, which would wait for the own claim for ever.
class Lock {
 public:
  // Throws Error(kUsage) where waiting for it fails; some file systems have no locks at all.
  Lock(int fd, const std::filesystem::path& file) : fd_(fd) {
    int failed = 0;
    while ((failed = set(F_WRLCK)) != 0 && errno == EINTR) {
    }
    holds_ = failed == 0;
    const bool has_none = errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL || errno == ENOLCK;
    if (!holds_ && !has_none)
      throw Error(Kind::kUsage, str("cannot lock the ledger ", file.string(), ": ", std::strerror(errno)));
  }
  ~Lock() {
    if (holds_) set(F_UNLCK);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  // False: others may be writing, so nothing may be cut off.
  bool holds() const { return holds_; }

 private:
  int set(short type) const {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_len = kFirstClaim;
    return ::fcntl(fd_, F_OFD_SETLKW, &lock);
  }
  int fd_;
  bool holds_ = false;
};

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// All of a record but its status and its settings.
Fields fields_of_record(Record& r) {
  return [&r](const Visit& visit) {
    visit({.name = "name"}, &r.name);
    visit({.name = "index"}, &r.index);
    visit({.name = "sub"}, &r.sub);
    visit({.name = "seed"}, &r.seed);
    visit({.name = "time"}, &r.time);
    visit({.name = "seconds"}, &r.seconds);
    visit({.name = "settings_hash"}, &r.settings_hash);
    if (r.is_done) visit({.name = "sha256"}, &r.sha256);
    if (r.is_done) visit({.name = "bytes"}, &r.bytes);
    if (!r.is_done) visit({.name = "error"}, &r.error);
  };
}

Json to_json(Record r) {
  Json out = fields_to_json(fields_of_record(r));
  out["status"] = r.is_done ? "done" : "failed";
  out["settings"] = r.settings;
  return out;
}

std::optional<Record> to_record(std::string_view line) {
  const Json j = parse_json(line);
  const auto is = [&](const char* status) { return j.contains("status") && j["status"] == status; };
  if (!j.is_object() || (!is("done") && !is("failed"))) return std::nullopt;
  try {
    Record r{.is_done = is("done"), .settings = j.value("settings", Json::object())};
    fields_from_json(fields_of_record(r), j);
    return r.name.empty() || !r.settings.is_object() ? std::nullopt : std::optional(r);
  } catch (const Error&) {
    return std::nullopt;
  }
}

constexpr size_t kMany = 1 << 16, kLine = 1 << 12;  // bytes read at once, for all lines and for one

// Calls take(chunk) for the bytes of a file from `at` on, until it says no or the file ends. Throws
// Error(kUsage) where they cannot be read: a disk that fails for a moment is no end.
template <class Take>
void read_from(int fd, const std::filesystem::path& file, int64_t at, size_t chunk, const Take& take) {
  std::string buffer(chunk, '\0');
  for (;;) {
    const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(Kind::kUsage, str("cannot read the ledger ", file.string(), ": ", std::strerror(errno)));
    if (n == 0 || !take(std::string_view(buffer).substr(0, static_cast<size_t>(n)))) return;
    at += n;
  }
}

uint64_t hash_of(const std::string& name) {
  return std::hash<std::string>()(name);
}

Record base_record(const request::Request& request, const Json& settings) {
  Record r;
  r.name = request.name;
  r.index = request.index;
  r.sub = request.sub;
  r.settings = settings;
  r.settings_hash = request::settings_hash(settings);
  const auto seed = settings.find("seed");
  if (seed != settings.end() && seed->is_number_integer()) r.seed = seed->get<uint64_t>();
  return r;
}

}  // namespace

Record done_record(const request::Request& request, const Json& settings, const Stored& stored) {
  Record r = base_record(request, settings);
  r.sha256 = stored.sha256;
  r.bytes = stored.bytes;
  r.seconds = stored.seconds;
  return r;
}

Record failed_record(const request::Request& request, const Json& settings, const std::string& error) {
  Record r = base_record(request, settings);
  r.is_done = false;
  r.error = error;
  return r;
}

Ledger::Ledger(const std::filesystem::path& file) : path_(file) {
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
  struct stat info {};
  const bool is_regular = fd_ >= 0 && ::fstat(fd_, &info) == 0 && S_ISREG(info.st_mode);
  if (!is_regular) {
    const std::string why = fd_ < 0 ? std::strerror(errno) : "it is not a plain file";
    if (fd_ >= 0) ::close(fd_);
    throw Error(Kind::kUsage, str("cannot open the ledger ", file.string(), ": ", why,
                                  "; mend its permissions or choose another output_dir"));
  }
  try {
    load();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

Ledger::~Ledger() {
  ::close(fd_);
}

void Ledger::load() {
  const Lock lock(fd_, path_);
  std::string line;
  int64_t begin = 0;
  read_from(fd_, path_, 0, kMany, [&](std::string_view chunk) {
    for (size_t end; (end = chunk.find('\n')) != std::string_view::npos; chunk.remove_prefix(end + 1)) {
      line += chunk.substr(0, end);
      take(line, begin);
      begin += std::ssize(line) + 1;
      line.clear();
    }
    line += chunk;
    return true;
  });
  if (line.empty()) return;
  if (to_record(line)) {
    // only the line end is missing
    if (::write(fd_, "\n", 1) != 1) had_torn_tail_ = true;
    take(line, begin);
    return;
  }
  had_torn_tail_ = true;
  // unlocked it may be the line that another process is writing
  const bool is_mended =
      lock.holds() ? ::ftruncate(fd_, static_cast<off_t>(begin)) == 0 : ::write(fd_, "\n", 1) == 1;
  if (!is_mended)
    throw Error(Kind::kUsage, str("cannot mend the ledger ", path_.string(), ": ", std::strerror(errno)));
}

void Ledger::take(std::string_view line, int64_t at) {
  if (trim(line).empty()) return;
  if (const auto record = to_record(line)) {
    places_.push_back({hash_of(record->name), at});
    is_sorted_ = false;
  } else {
    ++garbage_;
  }
}

void Ledger::sort() const {
  if (!is_sorted_) std::sort(places_.begin(), places_.end());
  is_sorted_ = true;
}

std::optional<Record> Ledger::read(int64_t at) const {
  std::string line;
  read_from(fd_, path_, at, kLine, [&](std::string_view chunk) {
    const size_t end = chunk.find('\n');
    line += chunk.substr(0, end);
    return end == std::string_view::npos;
  });
  return to_record(line);
}

std::optional<Record> Ledger::find(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  sort();
  const uint64_t hash = hash_of(name);
  auto at = std::upper_bound(places_.begin(), places_.end(), RecordPlace{hash, INT64_MAX});
  while (at != places_.begin()) {
    --at;
    if (at->name != hash) break;
    if (auto record = read(at->line); record && record->name == name) return record;
  }
  return std::nullopt;
}

std::vector<Record> Ledger::failed() const {
  const std::scoped_lock lock(mutex_);
  sort();
  std::vector<Record> out;
  for (size_t i = 0; i < places_.size(); ++i) {
    if (i + 1 < places_.size() && places_[i + 1].name == places_[i].name) continue;
    if (auto record = read(places_[i].line); record && !record->is_done) out.push_back(std::move(*record));
  }
  std::sort(out.begin(), out.end(), [](const Record& a, const Record& b) { return a.name < b.name; });
  return out;
}

void Ledger::append(Record record) {
  if (record.time.empty()) record.time = now_utc();
  const std::string line = to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const std::scoped_lock guard(mutex_);
  int64_t begin = 0;
  {
    const Lock lock(fd_, path_);
    const off_t before = ::lseek(fd_, 0, SEEK_END);
    begin = before;
    ssize_t n = 0;
    while ((n = ::write(fd_, line.data(), line.size())) < 0 && errno == EINTR) {
    }
    const bool is_whole = n == static_cast<ssize_t>(line.size()) && ::fsync(fd_) == 0;
    if (!is_whole) {
      // a short write without an error means that the disk ran full on the way
      const int error = n < 0 || n == static_cast<ssize_t>(line.size()) ? errno : ENOSPC;
      // nothing more can be done if this fails too: the next load cuts the torn line off
      static_cast<void>(lock.holds() ? !::ftruncate(fd_, before) : !::write(fd_, "\n", 1));
      const Kind kind = error == ENOSPC || error == EDQUOT ? Kind::kCapacity : Kind::kUsage;
      throw Error(kind, str("cannot write the ledger ", path_.string(), ": ", std::strerror(error)));
    }
  }
  places_.push_back({hash_of(record.name), begin});
  is_sorted_ = false;
}

}  // namespace atelier::jobs
