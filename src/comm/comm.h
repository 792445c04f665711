// Groups of ranks and what they can say to each other. The only room that sees c10d and NCCL.
#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/partition.h"

namespace atelier::comm {

// A communication that may still be running. wait() returns (CPU) or makes the current stream wait (CUDA); it
// holds the tensors until then. Dropping a Work waits too, so that no buffer is freed under a running
// transfer.
class Work {
 public:
  struct Impl {
    virtual ~Impl() = default;
    virtual void wait() = 0;  // throws Error(kPeer) when a peer is gone or silent
  };
  Work() = default;
  explicit Work(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Work(Work&&) = default;
  Work& operator=(Work&& other) noexcept;  // waits for the work it replaces
  ~Work();
  void wait();
  // False once it was waited for, and where there was nothing to wait for.
  bool is_under_way() const { return impl_ != nullptr; }
  // Lets go without waiting: what ran inside of a CUDA graph that was never finished cannot be waited for.
  void forget() noexcept { impl_.reset(); }

 private:
  std::unique_ptr<Impl> impl_;
};

// What one verb sent, for traces and for tests that hold totals against arithmetic.
struct Event {
  std::string_view verb, group;
  int64_t bytes_sent = 0;  // to other ranks only
  int peers = 0;           // ranks of the group without this one
};
using Observer = std::function<void(const Event&)>;

// Memory of every rank of a group, which all of them can load from and store to. Must be let go
// before its group; its tensors live no longer than it does, and no rank may let go before all have
// called a last barrier().
class Window {
 public:
  virtual ~Window() = default;
  virtual at::Tensor local() const = 0;         // [bytes], of bytes; zeros at first
  virtual at::Tensor peer(int rank) const = 0;  // local() of this rank of the group
  // What a rank stored before it is seen by all behind theirs. On CUDA in the order of the current stream,
  // without the host, and it may be recorded into a graph. stored: bytes that went into peers' memory since
  // the last one, for the observer. Throws as verbs do.
  void barrier(int64_t stored = 0) {
    if (tell_) tell_(stored);
    meet();
  }
  // Copies these bytes of local() to the same place in the memory of every other rank, which sees them behind
  // the next barrier() after wait(). On CUDA the copy engines do it, beside what the current stream does
  // next, and it may be recorded into a graph that waits for it too.
  [[nodiscard]] Work copy_to_peers(std::span<const Range> bytes) {
    Work copies = start_copies(bytes);
    if (*waits_) copies.wait();
    return copies;
  }

 protected:
  virtual void meet() = 0;
  virtual Work start_copies(std::span<const Range> bytes) = 0;

 private:
  friend class CheckedComm;
  std::function<void(int64_t stored)> tell_;
  std::shared_ptr<const bool> waits_ = std::make_shared<bool>(false);  // of its group
};

// One group of ranks. Buffers are contiguous; splits count elements of the flattened tensors, and may be
// uneven or zero. All ranks of the group call the same verbs in the same order. Every verb throws
// Error(kPeer) when a peer is gone, silent for longer than the transport's time-out, or after abort().
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;  // within the group
  virtual int size() const = 0;
  virtual std::string_view name() const = 0;

  // Sums over the ranks, in place; every rank gets bit-identical results.
  [[nodiscard]] virtual Work all_reduce(at::Tensor& sum) = 0;
  // out: the ranks' parts one after another, split[r] elements of rank r; mine has split[rank()] elements.
  [[nodiscard]] virtual Work all_gather(at::Tensor& out, const at::Tensor& mine,
                                        std::span<const int64_t> split) = 0;
  // in: in_split[r] elements for rank r; out: out_split[r] elements from rank r.
  [[nodiscard]] virtual Work all_to_all(at::Tensor& out, const at::Tensor& in,
                                        std::span<const int64_t> out_split,
                                        std::span<const int64_t> in_split) = 0;
  // Sends `out` to rank `to` while receiving `in` from rank `from`, without deadlock in any ring; -1: none.
  [[nodiscard]] virtual Work send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) = 0;
  // One-sided halves for hops between stages; messages of one pair arrive in order.
  [[nodiscard]] virtual Work send(const at::Tensor& out, int to) = 0;
  [[nodiscard]] virtual Work recv(at::Tensor& in, int from) = 0;
  virtual void broadcast(at::Tensor& value, int root) = 0;
  virtual void barrier() = 0;

  // Every rank asks for the same number of bytes. Null on all of them where their memory is not within reach
  // of each other: on several hosts, or where the transport has no such memory.
  virtual std::unique_ptr<Window> window(int64_t bytes) = 0;

  // From now on each verb, and each copy into peers' memory, waits for what it has started: nothing travels
  // while this rank computes. The same bits, later.
  virtual void wait_at_once() = 0;

  virtual void abort() noexcept = 0;  // from any thread: unblocks this rank and its peers, poisons the group
  // Throws Error(kPeer) once the group is poisoned. Kernels on a device end without a word then: what they
  // left is a result only if this passes after the device has been waited for.
  virtual void check_alive() = 0;
};

// How the ranks of one run reach each other. One per rank.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // A group of these global ranks, in this order; every member calls open with the same ranks and name.
  virtual std::unique_ptr<Comm> open(std::span<const int> ranks, std::string_view name) = 0;
  virtual void observe(Observer observer) = 0;  // called on the calling thread of each verb
  virtual void abort() noexcept = 0;            // all groups of this rank
};

// Where the ranks of several processes meet.
struct Rendezvous {
  std::filesystem::path file;  // a file on a file system that all ranks share (one host) ...
  std::string host;            // ... or the address of the store, which rank 0 serves ...
  int port = 0;
  std::string name;  // ... or a RendezvousServer, where these ranks, and no others, meet under this name
  int rank = 0, size = 1;
  std::chrono::milliseconds timeout{120000};
};

// Serves meetings of ranks of several hosts, for as long as it lives. Whoever reaches it may read and write
// what ranks tell each other there.
class RendezvousServer {
 public:
  // listening: a TCP socket that listens at the address where ranks will look; it is the server's from now
  // on. Throws Error(kPeer).
  explicit RendezvousServer(int listening);
  ~RendezvousServer();
  int port() const;

 private:
  struct Store;
  std::unique_ptr<Store> store_;
};

struct LocalOptions {
  // A send's wait() returns only when its receiver has asked for it, as with NCCL and Gloo; otherwise send()
  // copies.
  bool rendezvous_sends = false;
  std::chrono::milliseconds timeout{120000};
};
// Threads of one process as ranks: one transport per rank, for tests and for verify --strategy on the CPU.
// Tensors of any dtype in CPU memory. Ranks that disagree about a verb, a dtype or a size poison the group:
// Error(kPeer).
std::vector<std::unique_ptr<Transport>> connect_local(int size, const LocalOptions& options = {});
// Processes, CPU tensors. A send completes when its receiver has asked for it. A dead process is noticed at
// once by all others, in whichever group they wait. The meeting's file must be new: what an earlier run left
// in it misleads this one. Ignores SIGPIPE for the whole process, unless a handler is set.
std::unique_ptr<Transport> connect_gloo(const Rendezvous& rendezvous);
// Gives the environment variables that NCCL and c10d read the values this program needs, where they are
// not set: what the user has set stays. Changes the environment, so call it before there is a second thread.
void set_nccl_defaults();
// Processes or threads, CUDA tensors on the current device. Built only with ATELIER_CUDA; expects
// set_nccl_defaults() to have been called. Work::wait() orders streams and does not block the host, so a dead
// process shows in the next verb, or in the next host synchronisation's end. The verbs may be recorded into
// CUDA graphs, which must be gone before their group. A verb that fails aborts its group; where it was memory
// that did not suffice it throws c10::OutOfMemoryError or Error(kCapacity).
std::unique_ptr<Transport> connect_nccl(const Rendezvous& rendezvous);

}  // namespace atelier::comm
