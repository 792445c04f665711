// Where finished artifacts go: encoded, hashed and delivered in the worker that made them, so that neither
// the pool nor another host has to read them again.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cluster/job.h"
#include "jobs/ledger.h"
#include "media/image.h"
#include "request/request.h"

namespace atelier::cluster {

struct SinkResult {
  jobs::Stored record;
  std::string data;          // the bytes themselves, where nothing else keeps them
  double store_seconds = 0;  // of encoding, hashing and writing it, as the worker saw it
};

class Sink {
 public:
  virtual ~Sink() = default;
  // Any thread. Throws what media::encode throws, Error(kItem) where this artifact cannot be stored,
  // Error(kCapacity, kUsage) where no other could be either.
  virtual SinkResult put(const request::Request& request, const media::Artifact& artifact) = 0;
};

// What a sink has kept goes to the pool in pieces of so many bytes: between two of them the
// heartbeat is heard.
inline constexpr uint64_t kPieceBytes = 4u << 20;
// A folder, or the channel to the pool: as the configuration says. most: bytes of an artifact that are sent.
// Throws Error(kUsage) for a folder that cannot be written.
inline constexpr uint64_t kMostSentBytes = uint64_t{2} << 30;  // they lie in the memory of the pool
std::unique_ptr<Sink> make_sink(const SinkConfig& config, uint64_t most = kMostSentBytes);

// What these processes of this host had begun to store when they were ended: names of requests. Their own
// cleaning comes with their next artifact, which there may not be.
void remove_unfinished(const SinkConfig& config, const std::vector<std::string>& names,
                       const std::vector<pid_t>& processes);

}  // namespace atelier::cluster
