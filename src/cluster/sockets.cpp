#include "cluster/sockets.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "base/error.h"

namespace atelier::cluster {
namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses addresses_of(const std::string& host, int port, int flags) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  const int error =
      ::getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0)
    throw Error(Kind::kUsage, str("the host ", host, " of rank 0 is unknown: ", ::gai_strerror(error)));
  return {found, &::freeaddrinfo};
}

void set(int fd, int level, int option, int value) {
  ::setsockopt(fd, level, option, &value, sizeof value);
}

void tune(int fd) {
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
  const timeval patience{10, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

// errno of the last failure is kept.
Descriptor listening(const addrinfo& address) {
  // A connection that is taken back before it is accepted must not hold up who accepts.
  Descriptor fd(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return {};
  set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 || ::listen(fd.get(), 128) != 0) return {};
  return fd;
}

constexpr int kSelfPatience = 2000;  // ms

// A connection begun without waiting has come about.
bool is_connected(int fd, std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  pollfd entry{fd, POLLOUT, 0};
  int ready = 0;
  do {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    ready = ::poll(&entry, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
  } while (ready < 0 && errno == EINTR);
  int error = 0;
  socklen_t length = sizeof error;
  return ready == 1 && ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

}  // namespace

// Whether a connection to this address comes back to a listener of this process, as through a forwarded port.
static bool leads_here(const addrinfo& address, int listener) {
  const Descriptor fd(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return false;
  const bool is_under_way =
      ::connect(fd.get(), address.ai_addr, address.ai_addrlen) == 0 || errno == EINPROGRESS || errno == EINTR;
  if (!is_under_way) return false;
  pollfd entry{listener, POLLIN, 0};
  if (::poll(&entry, 1, kSelfPatience) != 1) return false;
  return accept_from(listener).get() >= 0;
}

Descriptor listen_at(const std::string& host, int port) {
  const auto at = addresses_of(host, port, 0);
  for (const addrinfo* a = at.get(); a; a = a->ai_next) {
    if (auto fd = listening(*a); fd.get() >= 0) return fd;
    if (errno != EADDRNOTAVAIL) return {};
  }
  const auto any = addresses_of("", port, AI_PASSIVE);
  for (const addrinfo* a = any.get(); a; a = a->ai_next) {
    auto fd = listening(*a);
    if (fd.get() < 0) continue;
    if (at && leads_here(*at, fd.get())) return fd;
    throw Error(Kind::kUsage,
                str(host, ", where rank 0 is said to be, is not an address of this machine (",
                    own_host_name(), "), which runs rank 0; set MASTER_ADDR to one of its own"));
  }
  return {};
}

Descriptor connect_to(const std::string& host, int port, std::chrono::milliseconds patience) {
  const auto at = addresses_of(host, port, 0);
  for (const addrinfo* a = at.get(); a; a = a->ai_next) {
    Descriptor fd(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd.get() < 0) continue;
    const bool is_begun = ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS;
    if (!is_begun || !is_connected(fd.get(), patience)) continue;
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK);
    tune(fd.get());
    return fd;
  }
  return {};
}

Descriptor accept_from(int listener) {
  Descriptor fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (fd.get() >= 0) tune(fd.get());
  return fd;
}

int free_port(const std::string& host) {
  const auto fd = listen_at(host, 0);
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (fd.get() < 0 || ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw Error(Kind::kPeer, str("no free port at ", host));
  }
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

std::string own_host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace atelier::cluster
