// Appends are one write under a file lock, so that neither a crash nor another process can mix two lines.
#include "jobs/ledger.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/error.h"
#include "base/text.h"
#include "request/request.h"
#include "request/settings.h"

namespace atelier::jobs {
namespace {

class Lock {
 public:
  explicit Lock(int fd) : fd_(fd) {
    while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~Lock() { ::flock(fd_, LOCK_UN); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;
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
  if (json_depth(line) > kMaxDepth) return std::nullopt;
  const Json j = Json::parse(line, nullptr, false);
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

std::string read_all(int fd) {
  std::string bytes;
  char buffer[1 << 16];
  for (off_t at = 0;;) {
    const ssize_t n = ::pread(fd, buffer, sizeof buffer, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(n));
    at += n;
  }
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
  load();
}

Ledger::~Ledger() {
  ::close(fd_);
}

void Ledger::load() {
  const Lock lock(fd_);
  std::string bytes = read_all(fd_);
  if (!bytes.empty() && bytes.back() != '\n') {
    const size_t begin = bytes.find_last_of('\n') + 1;  // npos + 1 is 0
    if (to_record(std::string_view(bytes).substr(begin))) {
      // only the line end is missing
      if (::write(fd_, "\n", 1) != 1) had_torn_tail_ = true;
    } else {
      had_torn_tail_ = true;
      bytes.resize(begin);
      if (::ftruncate(fd_, static_cast<off_t>(begin)) != 0) {
        throw Error(Kind::kUsage, str("cannot mend the ledger ", path_.string(), ": ", std::strerror(errno)));
      }
    }
  }
  for (const std::string_view line : split_lines(bytes)) {
    if (trim(line).empty()) continue;
    if (auto record = to_record(line)) {
      latest_[record->name] = std::move(*record);
    } else {
      ++garbage_;
    }
  }
}

std::optional<Record> Ledger::find(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  const auto found = latest_.find(name);
  return found == latest_.end() ? std::nullopt : std::optional<Record>(found->second);
}

std::vector<Record> Ledger::failed() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Record> out;
  for (const auto& [name, record] : latest_) {
    if (!record.is_done) out.push_back(record);
  }
  std::sort(out.begin(), out.end(), [](const Record& a, const Record& b) { return a.name < b.name; });
  return out;
}

void Ledger::append(Record record) {
  if (record.time.empty()) record.time = now_utc();
  const std::string line = to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const std::scoped_lock guard(mutex_);
  {
    const Lock lock(fd_);
    const off_t before = ::lseek(fd_, 0, SEEK_END);
    ssize_t n = 0;
    while ((n = ::write(fd_, line.data(), line.size())) < 0 && errno == EINTR) {
    }
    const bool is_whole = n == static_cast<ssize_t>(line.size()) && ::fsync(fd_) == 0;
    if (!is_whole) {
      // a short write without an error means that the disk ran full on the way
      const int error = n < 0 || n == static_cast<ssize_t>(line.size()) ? errno : ENOSPC;
      // nothing more can be done if this fails too: the next load cuts the torn line off
      static_cast<void>(!::ftruncate(fd_, before));
      const Kind kind = error == ENOSPC || error == EDQUOT ? Kind::kCapacity : Kind::kUsage;
      throw Error(kind, str("cannot write the ledger ", path_.string(), ": ", std::strerror(error)));
    }
  }
  latest_[record.name] = std::move(record);
}

}  // namespace atelier::jobs
