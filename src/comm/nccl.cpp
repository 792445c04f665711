// Processes as ranks, one GPU each: c10d's NCCL back-end, one communicator per group. A watch over sockets
// notices dead processes, which NCCL itself does not within one host, and aborts the communicators.
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include <ATen/Context.h>
#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <utility>

#include "base/error.h"
#include "comm/checked.h"
#include "comm/gloo_link.h"
#include "comm/guarded.h"
#include "comm/nccl_window.h"
#include "comm/store.h"
#include "comm/watch.h"

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

// One communicator, created at once: the first verb may already be recorded into a CUDA graph.
class NcclGroup : public Guarded {
 public:
  NcclGroup(const c10::intrusive_ptr<c10d::Store>& store, GroupPlace place, c10::Device device,
            const NcclOptions& options, std::chrono::milliseconds timeout)
      : place_(std::move(place)), store_(store_of(store, place_.key)) {
    const auto settings = Nccl::Options::create(options.priority == NcclOptions::Priority::kHigh);
    settings->timeout = timeout;
    settings->group_name = place_.key.name;
    try {
      nccl_ =
          c10::make_intrusive<Nccl>(store_, place_.rank, static_cast<int>(place_.key.ranks.size()), settings);
      nccl_->setBoundDeviceId(device);
      nccl_->eagerConnectSingleDevice(device);
    } catch (const std::exception& error) {
      throw Error(Kind::kPeer,
                  str("group ", place_.key.name, ": its ranks could not be connected: ", error.what()));
    }
  }
  ~NcclGroup() override {
    try {
      if (!is_poisoned_) nccl_->shutdown();
    } catch (const std::exception&) {  // a communicator that cannot be closed in order ends with the process
    }
  }

  Nccl& nccl() { return *nccl_; }
  const c10::intrusive_ptr<Nccl>& backend() const { return nccl_; }
  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }
  const GroupPlace& place() const override { return place_; }

  void check_alive() {
    const std::lock_guard lock(mutex_);
    if (!poison_.empty()) throw Error(Kind::kPeer, str("group ", place_.key.name, ": ", poison_));
  }
  void poison(const std::string& reason) noexcept override {
    {
      const std::lock_guard lock(mutex_);
      if (!poison_.empty()) return;
      poison_ = reason;
      is_poisoned_ = true;
    }
    try {
      nccl_->abort();  // kernels on the device return, and whoever waits for them
    } catch (const std::exception&) {
    }
  }

 private:
  GroupPlace place_;
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<Nccl> nccl_;
  std::mutex mutex_;
  std::string poison_;
  std::atomic<bool> is_poisoned_ = false;
};

class NcclComm : public CheckedComm {
 public:
  NcclComm(std::shared_ptr<NcclGroup> group, std::shared_ptr<Watch> watch, ObserverSlot observer,
           c10::Device device)
      : CheckedComm(group->place().rank, static_cast<int>(group->place().key.ranks.size()),
                    group->place().key.name, std::move(observer)),
        group_(std::move(group)),
        watch_(std::move(watch)),
        device_(device) {}

  Window* window(int64_t bytes) override {
    if (!symmetric_)
      symmetric_ = std::make_unique<SymmetricMemory>(group_->backend(), group_->store(), group_->place());
    return symmetric_->window(bytes, device_);
  }
  bool capturable() const override { return true; }
  void abort() noexcept override {
    watch_->abort_group(*group_, group_->place().key.ranks[rank()], Fate::kAborted);
  }

  void check_alive() override { group_->check_alive(); }
 protected:
  Work start_all_reduce(at::Tensor sum) override;
  Work start_all_gather(at::Tensor out, at::Tensor mine, Split split) override;
  Work start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) override;
  Work start_send_recv(at::Tensor out, int to, at::Tensor in, int from) override;
  Work start_send(at::Tensor out, int to) override { return start_send_recv(std::move(out), to, {}, -1); }
  Work start_recv(at::Tensor in, int from) override { return start_send_recv({}, -1, std::move(in), from); }
  Work start_broadcast(at::Tensor value, int root) override;
  void meet() override;
  bool accepts(const at::Tensor& tensor) const override { return tensor.device() == device_; }

 private:
  // Runs `enqueue` and turns what c10d throws into Error(kPeer). No work: nothing to wait for.
  template <class Enqueue>
  Work running(Enqueue enqueue) {
    try {
      c10::intrusive_ptr<c10d::Work> work = enqueue();
      return work ? Work(std::make_unique<NcclWork>(std::move(work), std::string(name()))) : Work{};
    } catch (const std::exception& error) {
      group_->check_alive();
      throw Error(Kind::kPeer, str("group ", name(), ": ", error.what()));
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
  std::shared_ptr<Watch> watch_;
  c10::Device device_;
  std::unique_ptr<SymmetricMemory> symmetric_;
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
    auto& nccl = group_->nccl();
    nccl.startCoalescing();
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      recv_part(out.narrow(0, begin[r], split[r]), r);
      send_part(mine, r);
    }
    return static_cast<c10d::Backend&>(nccl).endCoalescing();
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
    auto& nccl = group_->nccl();
    nccl.startCoalescing();
    if (to >= 0) send_part(out, to);
    if (from >= 0) recv_part(in, from);
    return static_cast<c10d::Backend&>(nccl).endCoalescing();
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

void NcclComm::meet() {
  running([&] {
    c10d::BarrierOptions options;
    options.device_ids = {device_.index()};
    return group_->nccl().barrier(options);
  }).wait();
}

class NcclTransport : public Transport {
 public:
  NcclTransport(const Meeting& meeting, const NcclOptions& options)
      : meeting_(meeting),
        options_(options),
        device_(c10::kCUDA, c10::cuda::current_device()),
        store_(comm::meet(meeting)) {
    auto link = std::make_shared<GlooLink>(store_, place(everyone(), "watch"),
                                           gloo_device(listening_host(meeting)), meeting_.timeout);
    watch_ = std::make_shared<Watch>(std::move(link));
  }

  int rank() const override { return meeting_.rank; }
  int size() const override { return meeting_.size; }

  std::unique_ptr<Comm> open(std::span<const int> ranks, std::string_view name) override {
    watch_->check_alive();
    auto group = std::make_shared<NcclGroup>(store_, place(ranks, name), device_, options_, meeting_.timeout);
    watch_->add(group);
    return std::make_unique<NcclComm>(std::move(group), watch_, observer_, device_);
  }

  void observe(Observer observer) override { *observer_ = std::move(observer); }
  void abort() noexcept override { watch_->abort_all(); }

 private:
  std::vector<int> everyone() const {
    std::vector<int> ranks(meeting_.size);
    std::iota(ranks.begin(), ranks.end(), 0);
    return ranks;
  }
  GroupPlace place(std::span<const int> ranks, std::string_view name) {
    const int mine = rank_within(ranks, meeting_.rank, meeting_.size);
    return {names_.next(ranks, name), mine};
  }

  Meeting meeting_;
  NcclOptions options_;
  c10::Device device_;
  c10::intrusive_ptr<c10d::Store> store_;
  GroupNames names_;
  ObserverSlot observer_ = std::make_shared<Observer>();
  std::shared_ptr<Watch> watch_;
};

}  // namespace

std::unique_ptr<Transport> connect_nccl(const Meeting& meeting, const NcclOptions& options) {
  ignore_broken_pipes();
  at::globalContext().lazyInitDevice(c10::kCUDA);
  // NVLink multicast stays off, and only these variables turn it off; what the user has set is left alone.
  setenv("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1", /*overwrite=*/0);
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  return std::make_unique<NcclTransport>(meeting, options);
}

}  // namespace atelier::comm
