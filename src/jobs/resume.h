// Which pictures are already there: one scan before anything loads, its result shared with every rank.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "jobs/ledger.h"
#include "request/request.h"

namespace atelier::jobs {

enum class Resume {
  kOff,          // draw everything again
  kRedoChanged,  // keep what is there, but draw again what was made with other settings
  kKeepChanged,  // keep that too
};

enum class Found {
  kAbsent,
  kDamaged,     // a file that is not a whole picture
  kDone,        // recorded with these settings
  kUnrecorded,  // a whole picture that the ledger does not know: counts as done
  kChanged,     // recorded with other settings
};

// How one setting differs over all changed pictures.
struct Change {
  int64_t pictures = 0;
  std::string was, is;  // of the first of them
};

struct Scan {
  std::vector<request::Request> todo;
  std::map<Found, int64_t> count;         // of all requests
  std::map<std::string, Change> changes;  // by key
  int64_t skipped = 0;
  int64_t failed_before = 0;  // requests of todo whose last record is a failure
  // For people, such as "resume: 12 of 20 pictures are there, 8 to draw; 3 were made with other settings
  // (num_inference_steps: 3, 4 -> 8) and are drawn again"; empty if nothing was found.
  std::string summary;
};

struct ScanRules {
  Resume resume = Resume::kRedoChanged;
  std::function<Json(const request::Request&)> settings;            // as asked for now
  std::function<bool(const std::filesystem::path&)> is_whole_file;  // media::is_complete
};

// Every request is looked at, each of several pictures of a row for itself.
Scan scan(const std::vector<request::Request>& requests, const std::filesystem::path& folder,
          const Ledger& ledger, const ScanRules& rules);

}  // namespace atelier::jobs
