// Messages between a pool and its workers: their kinds, and what they hold as JSON.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::cluster {

// Every message is an object with its kind under "is". What else it holds:
//   pool to worker
namespace message {
inline constexpr const char* kJob = "job";                 // job, rank: RankInfo
inline constexpr const char* kBatch = "batch";             // run, requests; runs are numbered upwards
inline constexpr const char* kCall = "call";               // run, call: a TensorCall
inline constexpr const char* kCancel = "cancel";           // run: see step_gate.h
inline constexpr const char* kStopBefore = "stop before";  // run, step
inline constexpr const char* kStop = "stop";               // leave
//   worker to pool
inline constexpr const char* kHello = "hello";      // rank, ranks, local_rank, local_size, start, host: of
                                                    // whoever comes over TCP; start -1: a launched process
inline constexpr const char* kAlive = "alive";      // run, phase, step, collectives: every 0.5 s
inline constexpr const char* kReady = "ready";      // loaded; stats
inline constexpr const char* kStep = "step";        // run, step, steps: done, at the replica's rank 0
inline constexpr const char* kNote = "note";        // run, request: its place in the batch, note: a sentence
inline constexpr const char* kPreview = "preview";  // run, request: its place in the batch, step: done, data
inline constexpr const char* kHeld = "held";        // run, step: begun last; the answer to cancel
inline constexpr const char* kGenerated =
    "generated";                                // run, times: may have the next batch while it is stored
inline constexpr const char* kPiece = "piece";  // run, data: bytes of the artifact that is stored next
inline constexpr const char* kStored =
    "stored";  // run, request: its place in the batch, bytes, sha256, seconds, codec,
               // data: the bytes themselves, or the last piece of them, if the sink has kept them
inline constexpr const char* kDone = "done";          // run: all of it is stored
inline constexpr const char* kAnswered = "answered";  // run, shape: of the result, from rank 0; of every rank
inline constexpr const char* kFailed =
    "failed";                                   // run (0: none), phase, kind (of an Error), reason; is_over:
                                                // this worker draws no more
inline constexpr const char* kStats = "stats";  // stats: after every batch
//   between the process of rank 0 and other launched processes, which start workers for it
inline constexpr const char* kStart = "start";           // rank, start
inline constexpr const char* kEndWorker = "end worker";  // rank
inline constexpr const char* kExited = "exited";         // rank, start, what
inline constexpr const char* kWelcome = "welcome";
inline constexpr const char* kEnd = "end";  // code
}  // namespace message

struct RankRange {
  int first = 0, count = 1;
  bool has(int rank) const { return rank >= first && rank < first + count; }
};

// Where a worker stands in the pool, and how it meets the other ranks of its replica.
struct RankInfo {
  int rank = 0;                        // in the pool
  int group = 0;                       // its replica
  int group_rank = 0, group_size = 1;  // within the replica
  int local_rank = 0, local_size = 1;  // on its host
  int start = 0;                       // how often the replica's workers have been started before
  std::string rendezvous_file;         // or
  std::string rendezvous_host, rendezvous_name;
  int rendezvous_port = 0;
};

// One rank since it was started.
struct RankStats {
  int rank = 0;
  std::string device;
  int64_t weight_bytes = 0, peak_device_bytes = 0, peak_host_bytes = 0;
  int64_t peak_reserved_bytes = 0;        // that the GPU's allocator held, in use or not
  int64_t samples = 0;                    // pictures x branches x steps that went through its blocks
  int64_t host_bytes = 0;                 // anonymous memory now
  std::map<std::string, double> seconds;  // by phase, of all batches
  std::set<std::string> used;             // kernels and strategies that really ran
};

// What one batch took on the replica's rank 0.
struct BatchTimes {
  std::map<std::string, double> seconds;  // by phase: encode, denoise, decode
  std::vector<double> step_ms;
  int64_t reread_bytes = 0;  // of weights, because other adapters were asked for
  // Under a step cache, of the replica: pictures x branches x steps whose blocks ran, or were left out.
  int64_t computed = 0, reused = 0;
};

// The kind is one of the constants above.
Json message_of(const char* kind);
Json message_of(const char* kind, int64_t run);
Json to_json(const RankInfo& info);
Json to_json(const RankStats& stats);
Json to_json(const BatchTimes& times);
// These throw Error(kPeer) for anything else.
RankInfo rank_info_from_json(const Json& json);
RankStats stats_from_json(const Json& json);
BatchTimes times_from_json(const Json& json);
std::string kind_of(const Json& message);

}  // namespace atelier::cluster
