// What is kept of one request of a client: what to draw, how far it is, what came of it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "request/request.h"

namespace atelier::server {

enum class JobState { kQueued, kRunning, kDone, kFailed, kCancelled };
std::string_view state_name(JobState state);  // "queued"
bool is_final(JobState state);

struct StoredPicture {
  std::string name, sha256;  // name: "0.png"
  uint64_t bytes = 0;
  double seconds = 0;
  uint64_t seed = 0;
};

struct JobRecord {
  std::string id = {};                            // made here: "job_" and 32 hexadecimal digits
  std::string owner = {};                         // name of the key that asked; empty: none is needed
  std::string idempotency = {};                   // what the client named the request; empty: nothing
  std::string body_hash = {};                     // of what the client sent
  std::string kind = {};                          // "images.generations"
  std::string format = {};                        // "png"
  int priority = 0;                               // higher ones are drawn first
  double created = 0, started = 0, finished = 0;  // s since 1970; 0: not yet
  double timeout = 0;  // s that a process may take from when it has the job; 0: any
  JobState state = JobState::kQueued;
  std::string error_code = {}, error_message = {};  // for the client
  int error_status = 0;
  std::vector<request::Request> requests = {};  // one for each picture
  std::vector<StoredPicture> pictures = {};     // that are stored
  std::vector<std::string> notes = {};
  std::string request_id = {};
};

Json to_json(const JobRecord& record);
JobRecord job_record_from_json(const Json& json);  // throws Error(kCheckpoint) for anything else
JobRecord job_record_of(const std::string& text);  // the same
// What the client is shown of it: nothing of this machine.
Json shown_job(const JobRecord& record);

std::string new_id(std::string_view prefix);  // with 128 random bits
double unix_time();

}  // namespace atelier::server
