// Messages between a supervisor and its workers: their kinds, and what they hold as JSON.
#pragma once
#include <string>

#include "base/json.h"
#include "cluster/job.h"
#include "request/request.h"

namespace atelier::cluster {

// Every message is an object with its kind under "is". What else it holds:
//   supervisor to worker
namespace message {
inline constexpr const char* kJob = "job";      // job, place
inline constexpr const char* kBatch = "batch";  // id, attempt, requests
inline constexpr const char* kStop = "stop";    // send statistics and leave
//   worker to supervisor
inline constexpr const char* kHello = "hello";  // rank, ranks, local_rank, local_size, start, host: of
                                                // whoever comes over TCP; start -1: a launched process
inline constexpr const char* kAlive = "alive";  // batch, phase, step: every 0.5 s
inline constexpr const char* kReady = "ready";  // loaded
inline constexpr const char* kStep = "step";    // batch, step, steps
inline constexpr const char* kDrawn = "drawn";  // batch, seconds, step_ms: may have the next one while this
                                                // one is written
inline constexpr const char* kPicture = "picture";  // batch, name, bytes, sha256, seconds: is in the folder
inline constexpr const char* kDone = "done";        // batch: all is written
inline constexpr const char* kFailed =
    "failed";  // batch (0: none), kind, reason, phase; is_over: this worker draws no more
inline constexpr const char* kStats = "stats";  // stats
//   between the process of rank 0 and other launched processes, which start workers for it
inline constexpr const char* kStart = "start";  // start
inline constexpr const char* kEndWorkers = "end workers";
inline constexpr const char* kExited = "exited";  // rank, start, what
inline constexpr const char* kWelcome = "welcome";
inline constexpr const char* kEnd = "end";  // code
}  // namespace message

// Where a rank stands in its run, and how it meets the others.
struct RankInfo {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // on its host
  int start = 0;                       // how many times the run's workers have been started before
  std::string rendezvous_file;         // or
  std::string rendezvous_host;
  int rendezvous_port = 0;
};

// The kind is one of the constants above.
Json message_of(const char* kind);
Json to_json(const RankInfo& info);
Json to_json(const request::Request& request);
Json to_json(const RankStats& stats);
// These throw Error(kPeer) for anything else.
RankInfo rank_info_from_json(const Json& json);
request::Request request_from_json(const Json& json);
RankStats stats_from_json(const Json& json);
std::string kind_of(const Json& message);

}  // namespace atelier::cluster
