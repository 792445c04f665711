// Threads of one process as ranks: tests of everything above comm/ run on these groups, with no socket and no
// GPU.
#include <ATen/ops/zeros.h>

#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "comm/checked.h"
#include "comm/comm.h"
#include "comm/local_group.h"

namespace atelier::comm {
namespace {

class LocalWork : public Work::Impl {
 public:
  LocalWork(std::shared_ptr<LocalGroup> group, std::vector<std::shared_ptr<LocalGroup::Pending>> parts)
      : group_(std::move(group)), parts_(std::move(parts)) {}
  void wait() override {
    for (const auto& part : parts_) group_->wait(part);
  }

 private:
  std::shared_ptr<LocalGroup> group_;
  std::vector<std::shared_ptr<LocalGroup::Pending>> parts_;
};

class LocalWindow : public Window {
 public:
  LocalWindow(int rank, std::vector<at::Tensor> memory, std::function<void()> meet)
      : rank_(rank), memory_(std::move(memory)), meet_(std::move(meet)) {}
  at::Tensor local() const override { return peer(rank_); }
  at::Tensor peer(int rank) const override { return memory_.at(static_cast<size_t>(rank)); }
  Work start_copies(std::span<const Range> bytes) override {
    for (int r = 0; r < static_cast<int>(memory_.size()); ++r) {
      if (r == rank_) continue;
      for (const Range part : bytes) {
        std::memcpy(static_cast<char*>(peer(r).data_ptr()) + part.begin,
                    static_cast<const char*>(local().const_data_ptr()) + part.begin,
                    static_cast<size_t>(part.size));
      }
    }
    return {};
  }

 protected:
  void meet() override { meet_(); }

 private:
  int rank_;
  std::vector<at::Tensor> memory_;
  std::function<void()> meet_;
};

class LocalComm : public CheckedComm {
 public:
  LocalComm(int rank, int size, std::string name, ObserverSlot observer, std::shared_ptr<LocalGroup> group,
            LocalGroup::Keep keep)
      : CheckedComm(rank, size, std::move(name), std::move(observer)),
        group_(std::move(group)),
        keep_(keep) {}
  ~LocalComm() override { group_->leave(rank()); }

  void abort() noexcept override { group_->poison(str("rank ", rank(), " aborted")); }

  void check_alive() override { group_->check_alive(); }

 protected:
  std::unique_ptr<Window> open_window(int64_t bytes) override {
    const auto mine = at::zeros({bytes}, at::TensorOptions(at::kByte));
    const auto all = group_->collect(rank(), turns_++, {.verb = "window", .out = mine, .number = bytes});
    group_->wait(all);
    std::vector<at::Tensor> memory;
    for (const auto& call : all->calls) memory.push_back(call.out);
    return std::make_unique<LocalWindow>(rank(), std::move(memory), [this] { start_barrier(); });
  }
  Work start_all_reduce(at::Tensor sum) override {
    return collect({.verb = "all_reduce", .out = std::move(sum)});
  }
  Work start_all_gather(at::Tensor out, at::Tensor mine, Split split) override {
    return collect(
        {.verb = "all_gather", .out = std::move(out), .in = std::move(mine), .out_split = std::move(split)});
  }
  Work start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) override {
    return collect({.verb = "all_to_all",
                    .out = std::move(out),
                    .in = std::move(in),
                    .out_split = std::move(out_split),
                    .in_split = std::move(in_split)});
  }
  Work start_send_recv(at::Tensor out, int to, at::Tensor in, int from) override {
    std::vector<std::shared_ptr<LocalGroup::Pending>> parts;
    if (to >= 0) parts.push_back(group_->send(rank(), to, out, LocalGroup::Keep::kReference));
    if (from >= 0) parts.push_back(group_->recv(rank(), from, in));
    return work(std::move(parts));
  }
  Work start_send(at::Tensor out, int to) override { return work({group_->send(rank(), to, out, keep_)}); }
  Work start_recv(at::Tensor in, int from) override { return work({group_->recv(rank(), from, in)}); }
  Work start_broadcast(at::Tensor value, int root) override {
    return collect({.verb = "broadcast", .out = std::move(value), .number = root});
  }
  void start_barrier() override { collect({.verb = "barrier"}).wait(); }
  bool accepts(const at::Tensor& tensor) const override { return tensor.is_cpu(); }

 private:
  Work work(std::vector<std::shared_ptr<LocalGroup::Pending>> parts) const {
    return Work(std::make_unique<LocalWork>(group_, std::move(parts)));
  }
  Work collect(LocalCall call) { return work({group_->collect(rank(), turns_++, std::move(call))}); }

  std::shared_ptr<LocalGroup> group_;
  LocalGroup::Keep keep_;
  int64_t turns_ = 0;  // collectives that this rank has called
};

// What the transports of one connect_local share: groups that some members have opened and others not yet.
class Hub {
 public:
  explicit Hub(LocalOptions options) : options_(options) {}
  const LocalOptions& options() const { return options_; }

  std::shared_ptr<LocalGroup> join(const GroupKey& key) {
    const std::lock_guard lock(mutex_);
    auto& [group, members] = waiting_[key];
    const auto size = static_cast<int>(key.ranks.size());
    if (!group) group = std::make_shared<LocalGroup>(key.name, size, options_);
    auto joined = group;
    if (++members == size) waiting_.erase(key);
    return joined;
  }

 private:
  struct Waiting {
    std::shared_ptr<LocalGroup> group;
    int members = 0;
  };
  LocalOptions options_;
  std::mutex mutex_;
  std::map<GroupKey, Waiting> waiting_;
};

class LocalTransport : public Transport {
 public:
  LocalTransport(int rank, int size, std::shared_ptr<Hub> hub)
      : rank_(rank), size_(size), hub_(std::move(hub)) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Comm> open(std::span<const int> ranks, std::string_view name) override {
    const int mine = rank_within(ranks, rank_, size_);
    const std::lock_guard lock(mutex_);
    if (is_aborted_) throw Error(Kind::kPeer, str("rank ", rank_, " aborted: no group can be opened"));
    auto group = hub_->join(names_.next(ranks, name));
    std::erase_if(groups_, [](const auto& known) { return known.expired(); });
    groups_.push_back(group);
    const auto keep =
        hub_->options().rendezvous_sends ? LocalGroup::Keep::kReference : LocalGroup::Keep::kCopy;
    return std::make_unique<LocalComm>(mine, static_cast<int>(ranks.size()), std::string(name), observer_,
                                       std::move(group), keep);
  }

  void observe(Observer observer) override { *observer_ = std::move(observer); }

  void abort() noexcept override {
    const std::lock_guard lock(mutex_);
    is_aborted_ = true;
    for (const auto& known : groups_) {
      if (const auto group = known.lock()) group->poison(str("rank ", rank_, " of the run aborted"));
    }
  }

 private:
  int rank_, size_;
  std::shared_ptr<Hub> hub_;
  ObserverSlot observer_ = std::make_shared<Observer>();
  std::mutex mutex_;
  bool is_aborted_ = false;
  GroupNames names_;
  std::vector<std::weak_ptr<LocalGroup>> groups_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> connect_local(int size, const LocalOptions& options) {
  ENSURE(size > 0);
  const auto hub = std::make_shared<Hub>(options);
  std::vector<std::unique_ptr<Transport>> transports;
  for (int r = 0; r < size; ++r) transports.push_back(std::make_unique<LocalTransport>(r, size, hub));
  return transports;
}

}  // namespace atelier::comm
