// TCP connections for control messages.
#pragma once
#include <chrono>
#include <string>

#include "cluster/process.h"

namespace atelier::cluster {

// Listens at this address, or at all of this host's if it is reached through a translated one. Empty when the
// port is taken. Throws Error(kUsage) for a host name that does not exist.
Descriptor listen_at(const std::string& host, int port);
// Empty when nobody listens there, or does not answer within this time, which counts for each of the host's
// addresses. Throws Error(kUsage) for a host name that does not exist.
Descriptor connect_to(const std::string& host, int port, std::chrono::milliseconds patience);
// The next connection, its peer's silence noticed in half a minute; empty if there is none. Does not wait.
Descriptor accept_from(int listener);
// A port that was free a moment ago.
int free_port(const std::string& host);
std::string own_host_name();

}  // namespace atelier::cluster
