// JSON messages with file descriptors between two processes of one host, over a socket that keeps
// message borders (SOCK_SEQPACKET).
#pragma once
#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "cluster/process.h"

namespace atelier::cluster {

struct Packet {
  Json message;
  std::vector<Descriptor> descriptors;
};

class PacketSocket {
 public:
  static constexpr size_t kMaxBytes = 128u << 10;  // of a message

  explicit PacketSocket(Descriptor socket) : socket_(std::move(socket)) {}
  int fd() const { return socket_.get(); }
  // Waits; none once the other end is gone. Throws Error(kPeer) for what is no JSON object.
  std::optional<Packet> receive() const;
  // Any thread; waits until there is room. False when the other end is gone, or this one is shut down. Throws
  // Error(kPeer) for more than kMaxBytes.
  bool send(const Json& message, int descriptor = -1) const;
  void shut_down() const;  // any thread; ends what this end waits for too

 private:
  Descriptor socket_;
  mutable std::atomic<bool> is_shut_down_{false};
};

}  // namespace atelier::cluster
