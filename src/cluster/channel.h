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
#include "cluster/process.h"

namespace atelier::cluster {

// One end of a connection. A frame is a length in 4 bytes, low byte first, so many bytes of text, and with a
// key 64 hexadecimal digits: HMAC-SHA256 of the sender's side, the frame's number, the receiver's nonce and
// the text. [RFC 2104] With a key each side begins by sending its nonce, so what was recorded of one
// connection is refused on another. The text is JSON, and behind a zero byte the bytes of the member "data",
// if it is binary.
//
// A worker's send() waits until the other end takes the message. The pool serves many and must not wait for
// one of them: what is not taken at once is kept, up to a bound, for flush().
class Channel {
 public:
  enum class Side : char { kPool = 's', kWorker = 'w' };
  static constexpr uint32_t kMaxBytes = 256u << 20;
  static constexpr uint32_t kMaxFirstBytes = 1u << 20;  // of the first message
  // Of the first message to a pool with a key: it may be anybody's.
  static constexpr uint32_t kMaxHelloBytes = 64u << 10;
  static constexpr size_t kMaxQueuedBytes = 16u << 20;  // not yet taken, when another message comes

  Channel(int fd, Side side, std::string key = {});  // owns fd
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  int fd() const { return fd_.get(); }
  // With a key and on the worker's side, before anything is sent: waits for the other end's nonce. False when
  // it does not come.
  bool greet(std::chrono::milliseconds time);
  // Any thread. At most kMaxBytes. False when the other end is gone or takes nothing any more.
  bool send(const Json& value);
  // Hands on what is kept, as far as the other end takes it. True while some is left: wait for POLLOUT.
  bool flush();
  // Takes in what has arrived, without waiting; before the first message little more than that may have.
  // False once the other end is gone; what came before stays readable. Throws Error(kPeer) for anything that
  // is no frame of this key.
  bool take_in();
  // The next message taken in.
  std::optional<Json> next();
  // Waits for a message until the time is over; none then, and when the other end is gone.
  std::optional<Json> wait(std::chrono::milliseconds time);
  // No more in either direction; both ends notice.
  void shut_down();

 private:
  std::string tag(Side sender, uint64_t number, std::string_view text) const;
  bool write_out(std::string_view& rest, int flags) const;  // false when the other end is gone
  bool take_nonce();

  uint32_t most_bytes() const;  // of the next message

  const Descriptor fd_;
  const Side side_;
  const std::string key_, nonce_;
  std::string their_nonce_;
  std::mutex sending_;
  std::string kept_;
  uint64_t sent_ = 0, received_ = 0;
  std::string buffer_;
  size_t consumed_ = 0;
};

// Marks the descriptor close-on-exec. Throws std::system_error.
void keep_from_children(int fd);

}  // namespace atelier::cluster
