// Where processes find each other: c10d's stores behind a Meeting.
#pragma once
#include <c10/util/intrusive_ptr.h>

#include <string>

#include "comm/checked.h"
#include "comm/comm.h"

namespace c10d {
class Store;
}

namespace atelier::comm {

// Opens the meeting's store. Throws Error(kPeer) when the other ranks do not come within meeting.timeout,
// Error(kUsage) when the meeting is malformed.
c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& rendezvous);
// The part of the store that belongs to one group alone.
c10::intrusive_ptr<c10d::Store> store_of(const c10::intrusive_ptr<c10d::Store>& store, const GroupKey& key);
// The address on which this rank's sockets listen.
std::string listening_host(const Rendezvous& rendezvous);

}  // namespace atelier::comm
