// The ledger beside the pictures: one JSON line per finished or failed picture, kept through crashes.
#pragma once
#include <compare>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "request/request.h"

namespace atelier::jobs {

inline constexpr const char* kLedgerName = "ledger.jsonl";

struct Record {
  std::string name;
  int64_t index = 0;
  int sub = 0;
  bool is_done = true;  // otherwise it failed
  uint64_t seed = 0;
  std::string settings_hash;
  Json settings;       // as used, seed included
  std::string sha256;  // of the file
  uint64_t bytes = 0;  // of the file
  double seconds = 0;
  std::string error;  // of a failed one
  std::string time;   // UTC; set by append when empty
};

// What is known of a file that has been written.
struct Stored {
  std::string sha256;
  uint64_t bytes = 0;
  double seconds = 0;
  std::string codec = {};  // of a file whose format has several: "H.264 (libx264)"
};
// settings: request::look(). The hash and the seed come from there.
Record done_record(const request::Request& request, const Json& settings, const Stored& stored);
Record failed_record(const request::Request& request, const Json& settings, const std::string& error);

// Any thread may use it, and several processes may append to one file.
class Ledger {
 public:
  // Creates the file if there is none, cuts off a last line that a crash left half written, reads the rest.
  // Lines that are no records are left alone and counted; so is a half one on file systems without
  // locks. Throws Error(kUsage) if the file cannot be opened or read.
  explicit Ledger(const std::filesystem::path& file);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // The latest record of this name; none if there is none. Throws Error(kUsage) if the file cannot be read.
  std::optional<Record> find(const std::string& name) const;
  // Pictures whose latest record is a failure, by name.
  std::vector<Record> failed() const;
  // On disk when it returns. Throws Error(kCapacity) when the disk is full; the file is then as before.
  void append(Record record);

  int garbage_lines() const { return garbage_; }
  bool had_torn_tail() const { return had_torn_tail_; }

 private:
  struct RecordPlace {
    uint64_t name = 0;  // its hash
    int64_t line = 0;   // where it begins in the file
    auto operator<=>(const RecordPlace&) const = default;
  };
  void load();
  void take(std::string_view line, int64_t at);
  void sort() const;
  std::optional<Record> read(int64_t line) const;

  std::filesystem::path path_;
  int fd_ = -1;
  int garbage_ = 0;
  bool had_torn_tail_ = false;
  mutable std::mutex mutex_;
  // Of all records: the file itself is read again for those that are asked for.
  mutable std::vector<RecordPlace> places_;
  mutable bool is_sorted_ = true;
};

}  // namespace atelier::jobs
