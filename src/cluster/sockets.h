// TCP connections for control messages.
#pragma once
#include <chrono>
#include <string>

#include "cluster/process.h"

namespace atelier::cluster {

// Listens at this address, or at all of this host's if it is reached through a translated one. Empty when the
// port is taken. Throws Error(kUsage) for a host name that does not exist.
Descriptor listen_at(const std::string& host, int port);
// Empty when nobody listens there.
Descriptor connect_to(const std::string& host, int port);
// The next connection, its peer's silence noticed in half a minute; empty if there is none.
Descriptor accept_from(int listener);
// A port that was free a moment ago.
int free_port(const std::string& host);
std::string own_host_name();

}  // namespace atelier::cluster
