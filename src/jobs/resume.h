// Which pictures are already there: one scan before anything loads, its result shared with every rank.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "jobs/ledger.h"
#include "request/request_list.h"

namespace atelier::jobs {

enum class Resume {
  kOff,          // draw everything again
  kRedoChanged,  // keep what is there, but draw again what was made with other settings
  kKeepChanged,  // keep that too, and whole pictures of others
};

enum class Found {
  kAbsent,
  kDamaged,  // ours, but no whole picture any more; or an empty file
  kDone,     // ours, made with these settings
  kChanged,  // ours, made with other settings
  kForeign,  // made by somebody else, or changed since
  kBlocked,  // no file can have this name here
};

// What a file says of itself.
struct Inspection {
  bool is_whole = false;  // a picture to its last byte
  std::string sha256;
  uint64_t bytes = 0;
  Json look;  // that this program wrote into it, values as text; null: none
};

// How one setting differs over all changed pictures.
struct Change {
  int64_t pictures = 0;
  std::string was, is;  // of the first of them
};

struct Refused {
  request::Request request;
  std::string reason;
};

struct Scan {
  request::RequestList todo;
  std::vector<Refused> refused;           // whose place is taken: not drawn
  std::vector<Record> adopted;            // done, but the ledger did not say so
  std::map<Found, int64_t> count;         // of all requests
  std::map<std::string, Change> changes;  // by key
  int64_t skipped = 0;
  int64_t failed_before = 0;  // requests of todo whose last record is a failure
  // For people, such as "resume: 12 of 20 pictures are there, 8 to draw; 3 were made with other settings
  // (num_inference_steps: 3, 4 -> 8) and are drawn again"; empty if nothing was found.
  std::string summary;
};

// What happens to files that are in the way of pictures and are not ours.
enum class Foreign { kRefused, kOverwritten };

struct ScanRules {
  Resume resume = Resume::kRedoChanged;
  Foreign foreign = Foreign::kRefused;
  std::function<Json(const request::Request&)> settings;            // as asked for now
  std::function<Json(const Json& settings)> as_text;                // as Inspection::look has them
  std::function<Inspection(const std::filesystem::path&)> inspect;  // of a plain file; never throws
};

// Every request is looked at, each of several pictures of a row for itself. A file is ours if it is the
// one that the ledger tells of, or says itself with which settings it was made (a run may end before
// the ledger knows).
Scan scan(const request::RequestList& requests, const std::filesystem::path& folder, const Ledger& ledger,
          const ScanRules& rules);

}  // namespace atelier::jobs
