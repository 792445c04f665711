// Messages between a supervisor and its workers: JSON objects in frames over a stream socket.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/job.h"
#include "jobs/item.h"

namespace atelier::engine {

// Every message is an object with its kind under "is". What else it holds:
//   supervisor to worker
namespace message {
inline constexpr const char* kJob = "job";      // job, place
inline constexpr const char* kBatch = "batch";  // id, attempt, items
inline constexpr const char* kStop = "stop";    // send statistics and leave
//   worker to supervisor
inline constexpr const char* kHello = "hello";      // rank, ranks, local_rank, local_size, start, host: of
                                                    // whoever comes over TCP; start -1: a launched process
inline constexpr const char* kAlive = "alive";      // batch, phase, step: every 0.5 s
inline constexpr const char* kReady = "ready";      // loaded
inline constexpr const char* kStep = "step";        // batch, step, steps
inline constexpr const char* kDrawn = "drawn";      // batch: may have the next one while this one is written
inline constexpr const char* kPicture = "picture";  // batch, name, bytes, seconds: is in the output folder
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

// One end of a connection. A frame is the length of the text in 4 bytes, low byte first, the text, and with a
// key 64 hexadecimal digits: HMAC-SHA256 of the sender's side, the frame's number and the text. [RFC 2104]
class Channel {
 public:
  enum class Side : char { kSupervisor = 's', kWorker = 'w' };
  static constexpr uint32_t kMaxBytes = 64u << 20;

  Channel(int fd, Side side, std::string key = {});  // owns fd
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  int fd() const { return fd_; }
  // Any thread. False when the other end is gone.
  bool send(const Json& value);
  // Takes in what has arrived, without waiting. False once the other end is gone; what came before stays
  // readable. Throws Error(kPeer) for anything that is no frame of this key.
  bool take_in();
  // The next message taken in.
  std::optional<Json> next();
  // Waits for a message until the time is over; none then, and when the other end is gone.
  std::optional<Json> wait(std::chrono::milliseconds time);
  // No more in either direction; both ends notice.
  void shut_down();

 private:
  std::string tag(Side sender, uint64_t number, std::string_view text) const;

  const int fd_;
  const Side side_;
  const std::string key_;
  std::mutex sending_;
  uint64_t sent_ = 0, received_ = 0;
  std::string buffer_;
  size_t consumed_ = 0;
};

// Where a rank stands in its run, and how it meets the others.
struct Place {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // on its host
  int start = 0;                       // how many times the run's workers have been started before
  std::string meeting_file;            // or
  std::string meeting_host;
  int meeting_port = 0;
};

// The kind is one of the constants above.
Json message_of(const char* kind);
Json to_json(const Place& place);
Json to_json(const jobs::Item& item);
Json to_json(const RankStats& stats);
// These throw Error(kPeer) for anything else.
Place place_from_json(const Json& json);
jobs::Item item_from_json(const Json& json);
RankStats stats_from_json(const Json& json);
std::string kind_of(const Json& message);

// Marks the descriptor close-on-exec. Throws std::system_error.
void keep_from_children(int fd);

}  // namespace atelier::engine
