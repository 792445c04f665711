#include "cluster/packets.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::cluster {
namespace {

constexpr size_t kMostDescriptors = 4;  // of a message
constexpr int kLook = 100;              // ms between two looks whether this end is shut down

template <size_t N>
struct alignas(cmsghdr) ControlBuffer {
  std::array<char, CMSG_SPACE(N * sizeof(int))> bytes{};
};

std::vector<Descriptor> descriptors_of(msghdr& header) {
  std::vector<Descriptor> all;
  for (auto* c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      all.emplace_back(fd);
    }
  }
  return all;
}

}  // namespace

std::optional<Packet> PacketSocket::receive() const {
  std::string text(kMaxBytes, '\0');
  ControlBuffer<kMostDescriptors> control;
  iovec part{text.data(), text.size()};
  msghdr header{};
  header.msg_iov = &part, header.msg_iovlen = 1;
  header.msg_control = control.bytes.data(), header.msg_controllen = control.bytes.size();
  ssize_t got = 0;
  do got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got <= 0) return std::nullopt;
  Packet packet{{}, descriptors_of(header)};
  text.resize(static_cast<size_t>(got));
  packet.message = Json::parse(text, nullptr, false);
  if ((header.msg_flags & MSG_TRUNC) || !packet.message.is_object())
    throw Error(Kind::kPeer, "a message that is no JSON object, or too long");
  return packet;
}

bool PacketSocket::send(const Json& message, int descriptor) const {
  std::string text = message.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxBytes)
    throw Error(Kind::kPeer, str("a message of ", text.size(), " bytes is too long"));
  iovec part{text.data(), text.size()};
  msghdr header{};
  header.msg_iov = &part, header.msg_iovlen = 1;
  ControlBuffer<1> control;
  if (descriptor >= 0) {
    header.msg_control = control.bytes.data(), header.msg_controllen = control.bytes.size();
    auto* const c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
  }
  // Who waits in the kernel for a reader does not hear that this end is shut down.
  while (!is_shut_down_) {
    if (::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return true;
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return false;
    pollfd entry{socket_.get(), POLLOUT, 0};
    ::poll(&entry, 1, kLook);
  }
  return false;
}

void PacketSocket::shut_down() const {
  is_shut_down_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace atelier::cluster
