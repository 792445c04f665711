// Where processes find each other: c10d's stores behind a Meeting.
#pragma once
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "comm/abortable_group.h"
#include "comm/checked.h"
#include "comm/comm.h"

namespace c10d {
class Store;
}

namespace atelier::comm {

// Opens the meeting's store. Throws Error(kPeer) when the other ranks do not come within meeting.timeout,
// Error(kUsage) when the meeting is malformed.
c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& rendezvous);
// How long to wait for other ranks. check_alive is called every now and then, and ends the wait if it throws.
struct Patience {
  std::chrono::milliseconds timeout;
  std::function<void()> check_alive;
};
// What the ranks of a group say under a name that is used once, in their order; `mine` is what this one says.
// Throws Error(kPeer) when somebody has said nothing within the timeout, or the store is gone.
std::vector<std::string> exchange_words(c10d::Store& store, const GroupPlace& place, const std::string& name,
                                        const std::string& mine, const Patience& patience);
// The part of the store that belongs to one group alone.
c10::intrusive_ptr<c10d::Store> store_of(const c10::intrusive_ptr<c10d::Store>& store, const GroupKey& key);
// The address on which this rank's sockets listen: that of the interface that GLOO_SOCKET_IFNAME names, else
// loopback for a file, else the one from which the rendezvous' host is reached.
std::string listening_host(const Rendezvous& rendezvous);

}  // namespace atelier::comm
