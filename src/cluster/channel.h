// JSON objects in frames over a stream socket.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atelier::cluster {

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

// Marks the descriptor close-on-exec. Throws std::system_error.
void keep_from_children(int fd);

}  // namespace atelier::cluster
