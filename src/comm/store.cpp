// Meetings over a file or over rank 0's TCP port.
#include "comm/store.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "base/error.h"
#include "base/quote.h"

namespace atelier::comm {
namespace {

void check(const Rendezvous& rendezvous) {
  const bool is_file = !rendezvous.file.empty(), is_address = !rendezvous.host.empty();
  if (is_file == is_address) {
    throw Error(Kind::kUsage, "a meeting needs either a file or the host and port of rank 0");
  }
  if (is_address && (rendezvous.port <= 0 || rendezvous.port > 65535)) {
    throw Error(Kind::kUsage, str("the port of rank 0 must be in 1..65535, found ", rendezvous.port));
  }
  if (rendezvous.size < 1 || rendezvous.rank < 0 || rendezvous.rank >= rendezvous.size) {
    throw Error(Kind::kUsage,
                str("rank ", rendezvous.rank, " of ", rendezvous.size, " ranks does not exist"));
  }
}

// The local address from which packets to host:port leave; empty if there is no route. Sends nothing.
std::string address_towards(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  const int socket = ::socket(found->ai_family, SOCK_DGRAM, 0);
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  auto* const mine = reinterpret_cast<sockaddr*>(&address);
  char text[NI_MAXHOST] = "";
  const bool is_known = socket >= 0 && connect(socket, found->ai_addr, found->ai_addrlen) == 0 &&
                        getsockname(socket, mine, &length) == 0 &&
                        getnameinfo(mine, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
  if (socket >= 0) close(socket);
  return is_known ? text : "";
}

// The address of a network interface of this host, as GLOO_SOCKET_IFNAME names it.
std::string address_of_interface(const std::string& name) {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0)
    throw Error(Kind::kUsage, "the network interfaces of this host cannot be read");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(first, freeifaddrs);
  std::set<std::string> known;
  for (const ifaddrs* each = first; each != nullptr; each = each->ifa_next) {
    const int family = each->ifa_addr == nullptr ? AF_UNSPEC : each->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    known.insert(each->ifa_name);
    char text[NI_MAXHOST] = "";
    const auto length =
        static_cast<socklen_t>(family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    if (name == each->ifa_name &&
        getnameinfo(each->ifa_addr, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      return text;
  }
  throw Error(Kind::kUsage,
              str("GLOO_SOCKET_IFNAME is ", in_quotes(name), "; the interfaces of this host are ",
                  list_text(std::vector<std::string>(known.begin(), known.end()), 16)));
}

// Where a socket of this process listens, as one connects to it from here: localhost for all addresses.
std::pair<std::string, uint16_t> address_of(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  auto* const mine = reinterpret_cast<sockaddr*>(&address);
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
  if (getsockname(socket, mine, &length) != 0 ||
      getnameinfo(mine, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    throw std::runtime_error("it does not listen");
  const std::string_view name = host;
  return {name == "0.0.0.0" || name == "::" ? "localhost" : host, static_cast<uint16_t>(std::stoi(port))};
}

constexpr std::chrono::milliseconds kLongestPause{50};  // between two looks at a key

// Not by the store's own wait, which hears of nothing else.
std::vector<uint8_t> await_value(c10d::Store& store, const std::string& key, const Patience& patience) {
  const auto until = std::chrono::steady_clock::now() + patience.timeout;
  for (auto pause = std::chrono::milliseconds(1); !store.check({key});
       pause = std::min(2 * pause, kLongestPause)) {
    patience.check_alive();
    if (std::chrono::steady_clock::now() > until)
      throw std::runtime_error(str("nothing was said under ", key, " for ",
                                   static_cast<double>(patience.timeout.count()) / 1000, " s"));
    std::this_thread::sleep_for(pause);
  }
  return store.get(key);
}

}  // namespace

c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& rendezvous) {
  check(rendezvous);
  try {
    c10::intrusive_ptr<c10d::Store> store;
    if (!rendezvous.file.empty()) {
      store = c10::make_intrusive<c10d::FileStore>(rendezvous.file.string(), rendezvous.size);
    } else {
      c10d::TCPStoreOptions options;
      options.port = static_cast<uint16_t>(rendezvous.port);
      options.isServer = rendezvous.name.empty() && rendezvous.rank == 0;
      options.numWorkers = static_cast<size_t>(rendezvous.size);
      options.waitWorkers = rendezvous.name.empty();  // a server of many does not count who comes
      options.timeout = rendezvous.timeout;
      store = c10::make_intrusive<c10d::TCPStore>(rendezvous.host, options);
      if (!rendezvous.name.empty()) store = c10::make_intrusive<c10d::PrefixStore>(rendezvous.name, store);
    }
    store->setTimeout(rendezvous.timeout);
    return store;
  } catch (const std::exception& error) {
    const auto where =
        rendezvous.file.empty() ? str(rendezvous.host, ":", rendezvous.port) : rendezvous.file.string();
    throw Error(Kind::kPeer,
                str("rank ", rendezvous.rank, " could not meet the others at ", where, ": ", error.what()));
  }
}

std::vector<std::string> exchange_words(c10d::Store& store, const GroupPlace& place, const std::string& name,
                                        const std::string& mine, const Patience& patience) {
  const auto key = [&](int rank) { return str(name, "/", rank); };
  try {
    store.set(key(place.rank), std::vector<uint8_t>(mine.begin(), mine.end()));
    std::vector<std::string> words;
    for (int r = 0; r < static_cast<int>(place.key.ranks.size()); ++r) {
      const auto word = await_value(store, key(r), patience);
      words.emplace_back(word.begin(), word.end());
    }
    return words;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(Kind::kPeer, str("group ", place.key.name, ": not every rank has come: ", error.what()));
  }
}

struct RendezvousServer::Store {
  c10::intrusive_ptr<c10d::TCPStore> server;
};

RendezvousServer::RendezvousServer(int listening) try : store_(std::make_unique<Store>()) {
  const auto [host, port] = address_of(listening);
  c10d::TCPStoreOptions options;
  options.port = port;
  options.masterListenFd = listening;
  options.isServer = true;
  options.waitWorkers = false;
  store_->server = c10::make_intrusive<c10d::TCPStore>(host, options);
} catch (const std::exception& error) {
  throw Error(Kind::kPeer, str("no port for ranks to meet at: ", error.what()));
}

RendezvousServer::~RendezvousServer() = default;

int RendezvousServer::port() const {
  return store_->server->getPort();
}

c10::intrusive_ptr<c10d::Store> store_of(const c10::intrusive_ptr<c10d::Store>& store, const GroupKey& key) {
  return c10::make_intrusive<c10d::PrefixStore>(text_of(key), store);
}

std::string listening_host(const Rendezvous& rendezvous) {
  constexpr const char* kLoopback = "127.0.0.1";
  const char* const interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface != nullptr && interface[0] != '\0') return address_of_interface(interface);
  if (!rendezvous.file.empty()) return kLoopback;
  auto address = address_towards(rendezvous.host, rendezvous.port);
  if (address.empty()) {
    throw Error(Kind::kUsage, str("no route to rank 0 at ", rendezvous.host,
                                  ": check the address, or name this host's network "
                                  "interface in GLOO_SOCKET_IFNAME"));
  }
  return address;
}

}  // namespace atelier::comm
