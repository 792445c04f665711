// Processes or threads as ranks, one GPU each: c10d's NCCL back-end, one communicator per group. A watch over
// sockets notices dead processes, which NCCL itself does not within one host, and aborts the communicators.
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include <ATen/Context.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <mutex>
#include <numeric>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <utility>

#include "base/error.h"
#include "comm/abortable_group.h"
#include "comm/checked.h"
#include "comm/cuda_window.h"
#include "comm/gloo_link.h"
#include "comm/peer_monitor.h"
#include "comm/store.h"

namespace atelier::comm {
namespace {

using Nccl = c10d::ProcessGroupNCCL;

class NcclWork : public Work::Impl {
 public:
  NcclWork(c10::intrusive_ptr<c10d::Work> work, std::string group)
      : work_(std::move(work)), group_(std::move(group)) {}
  void wait() override {
    try {
      work_->wait();
    } catch (const std::exception& error) {
      throw Error(Kind::kPeer, str("group ", group_, ": ", error.what()));
    }
  }

 private:
  c10::intrusive_ptr<c10d::Work> work_;
  std::string group_;
};

// One communicator, created at once: the first verb may already be recorded into a CUDA graph. Its threads
// and those of the watch have no device of their own, so whatever opens or closes it names the device.
class NcclGroup : public AbortableGroup {
 public:
  // Held while a verb hands its work to NCCL.
  using Turn = std::unique_lock<std::timed_mutex>;

  // run: of all runs that this process may take part in.
  NcclGroup(const c10::intrusive_ptr<c10d::Store>& store, const std::string& run, GroupPlace place,
            c10::Device device, std::chrono::milliseconds timeout);
  ~NcclGroup() override;

  const GroupPlace& place() const override { return place_; }
  Nccl& nccl() { return *nccl_; }
  Turn turn();  // throws Error(kPeer) once the group is poisoned
  void check_alive();
  bool is_poisoned() const;
  void poison(const std::string& reason) noexcept override;
  // Poisons the window's barriers too.
  void guard(std::shared_ptr<WindowAbort> window);
  // Every rank's word, given this one's. All ranks call it equally often. Throws Error(kPeer).
  std::vector<std::string> exchange(const std::string& mine);

 private:
  void abort() noexcept;

  GroupPlace place_;
  c10::Device device_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<Nccl> nccl_;
  std::timed_mutex turn_;
  mutable std::mutex mutex_;
  std::string poison_;
  std::future<void> aborting_;
  std::vector<std::weak_ptr<WindowAbort>> windows_;
  int exchanges_ = 0;
};

NcclGroup::NcclGroup(const c10::intrusive_ptr<c10d::Store>& store, const std::string& run, GroupPlace place,
                     c10::Device device, std::chrono::milliseconds timeout)
    : place_(std::move(place)), device_(device), store_(store_of(store, place_.key)), timeout_(timeout) {
  // At high priority its kernels start before compute kernels that wait.
  const auto settings = Nccl::Options::create(/*is_high_priority_stream=*/true);
  settings->timeout = timeout;
  settings->group_name = str(run, "/", text_of(place_.key));
  const c10::cuda::CUDAGuard guard(device_);
  try {
    nccl_ =
        c10::make_intrusive<Nccl>(store_, place_.rank, static_cast<int>(place_.key.ranks.size()), settings);
    nccl_->setBoundDeviceId(device_);
    nccl_->eagerConnectSingleDevice(device_);
  } catch (const std::exception& error) {
    abort();
    nccl_.reset();
    throw Error(failure_kind(error),
                str("group ", place_.key.name, ": its ranks could not be connected: ", error.what()));
  }
}

// Everything that c10d runs for this group ends here, while its store is still there.
NcclGroup::~NcclGroup() {
  if (aborting_.valid()) aborting_.wait();
  try {
    const c10::cuda::CUDAGuard guard(device_);
    try {
      if (!is_poisoned()) nccl_->shutdown();
    } catch (const std::exception&) {
      abort();  // or c10d's destructor would, and end the process if that throws
    }
    nccl_.reset();
  } catch (const std::exception&) {  // the device is lost: what can be freed goes with the members
  }
}

void NcclGroup::check_alive() {
  const std::lock_guard lock(mutex_);
  if (!poison_.empty()) throw Error(Kind::kPeer, str("group ", place_.key.name, ": ", poison_));
}

bool NcclGroup::is_poisoned() const {
  const std::lock_guard lock(mutex_);
  return !poison_.empty();
}

NcclGroup::Turn NcclGroup::turn() {
  Turn turn(turn_);
  check_alive();
  return turn;
}

void NcclGroup::abort() noexcept {
  try {
    const c10::cuda::CUDAGuard guard(device_);
    if (nccl_) nccl_->abort();  // kernels on the device return, and whoever waits for them
  } catch (const std::exception&) {
  }
}

// On a thread of its own: NCCL's abort waits for the CUDA graphs that hold its kernels, so it may return only
// when this rank has unwound, which it can only after all of its groups have been aborted.
void NcclGroup::poison(const std::string& reason) noexcept {
  const auto abort_soon = [this] {
    // Aborting frees the communicator: no verb may be about to use it. None starts any more, and one that has
    // started takes microseconds, unless it waits for a lost peer's connection, which only the abort ends.
    constexpr std::chrono::milliseconds kVerb{500};
    { const Turn last(turn_, kVerb); }
    abort();
  };
  {
    const std::lock_guard lock(mutex_);
    if (!poison_.empty()) return;
    poison_ = reason;
    for (const auto& known : windows_) {
      if (const auto window = known.lock()) window->set();
    }
    try {
      aborting_ = std::async(std::launch::async, abort_soon);
      return;
    } catch (const std::exception&) {  // no thread to be had
    }
  }
  abort();  // without the lock: check_alive must not wait as long as this may take
}

void NcclGroup::guard(std::shared_ptr<WindowAbort> window) {
  const std::lock_guard lock(mutex_);
  if (!poison_.empty()) window->set();
  std::erase_if(windows_, [](const auto& known) { return known.expired(); });
  windows_.push_back(window);
}

std::vector<std::string> NcclGroup::exchange(const std::string& mine) {
  return exchange_words(*store_, place_, str("window/", exchanges_++), mine,
                        {timeout_, [this] { check_alive(); }});
}

// Messages that NCCL starts as one. NCCL counts, by thread, who has begun, and starts nothing before all have
// ended: so this ends even where an exception comes in between.
class Coalescing {
 public:
  explicit Coalescing(Nccl& nccl) : nccl_(nccl) { nccl_.startCoalescing(); }
  ~Coalescing() {
    try {
      if (is_open_) end();
    } catch (const std::exception&) {  // the exception under way says what went wrong
    }
  }
  Coalescing(const Coalescing&) = delete;
  Coalescing& operator=(const Coalescing&) = delete;
  c10::intrusive_ptr<c10d::Work> end() {
    is_open_ = false;
    return static_cast<c10d::Backend&>(nccl_).endCoalescing();
  }

 private:
  Nccl& nccl_;
  bool is_open_ = true;
};

class NcclComm : public CheckedComm {
 public:
  NcclComm(std::shared_ptr<NcclGroup> group, std::shared_ptr<PeerMonitor> watch, ObserverSlot observer,
           c10::Device device)
      : CheckedComm(group->place().rank, static_cast<int>(group->place().key.ranks.size()),
                    group->place().key.name, std::move(observer)),
        group_(std::move(group)),
        monitor_(std::move(watch)),
        device_(device) {}

  void abort() noexcept override {
    monitor_->abort_group(*group_, group_->place().key.ranks[rank()], PeerStatus::kAborted);
  }

  void check_alive() override { group_->check_alive(); }

 protected:
  std::unique_ptr<Window> open_window(int64_t bytes) override {
    const auto abort = std::make_shared<WindowAbort>();
    group_->guard(abort);
    return open_cuda_window(rank(), size(), device_, bytes, abort,
                            [this](const std::string& mine) { return group_->exchange(mine); });
  }
  Work start_all_reduce(at::Tensor sum) override;
  Work start_all_gather(at::Tensor out, at::Tensor mine, Split split) override;
  Work start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) override;
  Work start_send_recv(at::Tensor out, int to, at::Tensor in, int from) override;
  Work start_send(at::Tensor out, int to) override { return start_send_recv(std::move(out), to, {}, -1); }
  Work start_recv(at::Tensor in, int from) override { return start_send_recv({}, -1, std::move(in), from); }
  Work start_broadcast(at::Tensor value, int root) override;
  void start_barrier() override;
  bool accepts(const at::Tensor& tensor) const override { return tensor.device() == device_; }

 private:
  // Runs `enqueue` and turns what c10d throws into Error(kPeer, kCapacity). No work: nothing to wait for.
  template <class Enqueue>
  Work running(Enqueue enqueue) {
    try {
      c10::intrusive_ptr<c10d::Work> work;
      {
        const auto turn = group_->turn();
        work = enqueue();
      }
      return work ? Work(std::make_unique<NcclWork>(std::move(work), std::string(name()))) : Work{};
    } catch (const c10::OutOfMemoryError&) {
      abort();  // the peers would wait for what this rank cannot send
      throw;
    } catch (const std::exception& error) {
      group_->check_alive();
      abort();
      throw Error(failure_kind(error), str("group ", name(), ": ", error.what()));
    }
  }
  void send_part(const at::Tensor& part, int to) {
    std::vector<at::Tensor> tensors{part};
    if (part.numel() > 0) group_->nccl().send(tensors, to, 0);
  }
  void recv_part(const at::Tensor& part, int from) {
    std::vector<at::Tensor> tensors{part};
    if (part.numel() > 0) group_->nccl().recv(tensors, from, 0);
  }

  std::shared_ptr<NcclGroup> group_;
  std::shared_ptr<PeerMonitor> monitor_;
  c10::Device device_;
};

Work NcclComm::start_all_reduce(at::Tensor sum) {
  return running([&] {
    std::vector<at::Tensor> tensors{sum};
    return group_->nccl().allreduce(tensors);
  });
}

Work NcclComm::start_all_gather(at::Tensor out, at::Tensor mine, Split split) {
  const bool is_even = std::all_of(split.begin(), split.end(), [&](int64_t n) { return n == split[0]; });
  if (is_even) return running([&] { return group_->nccl()._allgather_base(out, mine); });
  const auto begin = offsets(split);
  out.narrow(0, begin[rank()], split[rank()]).copy_(mine);
  return running([&] {
    Coalescing coalescing(group_->nccl());
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      recv_part(out.narrow(0, begin[r], split[r]), r);
      send_part(mine, r);
    }
    return coalescing.end();
  });
}

Work NcclComm::start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) {
  // It is one group of sends and receives, so a rank that has neither need not take part. The splits are
  // passed even if they are equal: without them another algorithm would run, and only all ranks together can
  // know that all are equal.
  if (out.numel() == 0 && in.numel() == 0) return {};
  return running([&] { return group_->nccl().alltoall_base(out, in, out_split, in_split); });
}

// Coalesced even if it is only one message: alone, c10d would open a further communicator for each pair.
Work NcclComm::start_send_recv(at::Tensor out, int to, at::Tensor in, int from) {
  return running([&] {
    Coalescing coalescing(group_->nccl());
    if (to >= 0) send_part(out, to);
    if (from >= 0) recv_part(in, from);
    return coalescing.end();
  });
}

Work NcclComm::start_broadcast(at::Tensor value, int root) {
  return running([&] {
    std::vector<at::Tensor> tensors{value};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return group_->nccl().broadcast(tensors, options);
  });
}

void NcclComm::start_barrier() {
  running([&] {
    c10d::BarrierOptions options;
    options.device_ids = {device_.index()};
    return group_->nccl().barrier(options);
  }).wait();
}

class NcclTransport : public Transport {
 public:
  explicit NcclTransport(const Rendezvous& rendezvous)
      : rendezvous_(rendezvous),
        device_(c10::kCUDA, c10::cuda::current_device()),
        store_(comm::open_store(rendezvous)) {
    auto link = std::make_shared<GlooLink>(store_, place(everyone(), "watch"),
                                           gloo_device(listening_host(rendezvous)), rendezvous_.timeout);
    monitor_ = std::make_shared<PeerMonitor>(std::move(link));
  }

  int rank() const override { return rendezvous_.rank; }
  int size() const override { return rendezvous_.size; }

  std::unique_ptr<Comm> open(std::span<const int> ranks, std::string_view name) override {
    monitor_->check_alive();
    const auto group_place = place(ranks, name);
    // Nobody can wake NCCL while it waits for ranks that do not come: so all are there before it begins.
    exchange_words(*store_of(store_, group_place.key), group_place, "here", ".",
                   {rendezvous_.timeout, [this] { monitor_->check_alive(); }});
    auto group = std::make_shared<NcclGroup>(store_, run(), group_place, device_, rendezvous_.timeout);
    monitor_->add(group);
    return std::make_unique<NcclComm>(std::move(group), monitor_, observer_, device_);
  }

  void observe(Observer observer) override { *observer_ = std::move(observer); }
  void abort() noexcept override { monitor_->abort_all(); }

 private:
  std::vector<int> everyone() const {
    std::vector<int> ranks(rendezvous_.size);
    std::iota(ranks.begin(), ranks.end(), 0);
    return ranks;
  }
  std::string run() const {
    return rendezvous_.file.empty() ? str(rendezvous_.host, ":", rendezvous_.port)
                                    : rendezvous_.file.string();
  }
  GroupPlace place(std::span<const int> ranks, std::string_view name) {
    const int mine = rank_within(ranks, rendezvous_.rank, rendezvous_.size);
    return {names_.next(ranks, name), mine};
  }

  Rendezvous rendezvous_;
  c10::Device device_;
  c10::intrusive_ptr<c10d::Store> store_;
  GroupNames names_;
  ObserverSlot observer_ = std::make_shared<Observer>();
  std::shared_ptr<PeerMonitor> monitor_;
};

}  // namespace

std::unique_ptr<Transport> connect_nccl(const Rendezvous& rendezvous) {
  ignore_broken_pipes();
  at::globalContext().lazyInitDevice(c10::kCUDA);
  return std::make_unique<NcclTransport>(rendezvous);
}

}  // namespace atelier::comm
