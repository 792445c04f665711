// What every transport's group has in common: arguments are checked, events reported, groups of one rank
// answered and messages to oneself copied, before a transport sees the call.
#pragma once
#include <compare>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "comm/comm.h"

namespace atelier::comm {

// Set once per transport, shared by its groups.
using ObserverSlot = std::shared_ptr<Observer>;

// Of what a library has thrown: kCapacity where its words say that a device's memory is used up, else kPeer.
Kind failure_kind(const std::exception& error);

class CheckedComm : public Comm {
 public:
  CheckedComm(int rank, int size, std::string name, ObserverSlot observer);

  int rank() const final { return rank_; }
  int size() const final { return size_; }
  std::string_view name() const final { return name_; }

  Work all_reduce(at::Tensor& sum) final;
  Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) final;
  Work all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                  std::span<const int64_t> in_split) final;
  Work send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) final;
  Work send(const at::Tensor& out, int to) final;
  Work recv(at::Tensor& in, int from) final;
  void broadcast(at::Tensor& value, int root) final;
  void barrier() final;
  std::unique_ptr<Window> window(int64_t bytes) final;
  void wait_at_once() final { *waits_ = true; }

 protected:
  using Split = std::vector<int64_t>;
  // The verbs proper. size() > 1, tensors are flat and not empty as a whole on at least one rank, peers are
  // valid and never this rank. start_send_recv: `to` or `from` may be -1, not both; a half without elements
  // is already removed.
  virtual Work start_all_reduce(at::Tensor sum) = 0;
  virtual Work start_all_gather(at::Tensor out, at::Tensor mine, Split split) = 0;
  virtual Work start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) = 0;
  virtual Work start_send_recv(at::Tensor out, int to, at::Tensor in, int from) = 0;
  virtual Work start_send(at::Tensor out, int to) = 0;
  virtual Work start_recv(at::Tensor in, int from) = 0;
  virtual Work start_broadcast(at::Tensor value, int root) = 0;
  virtual void start_barrier() = 0;  // barrier
  virtual std::unique_ptr<Window> open_window(int64_t) { return nullptr; }
  virtual bool accepts(const at::Tensor& tensor) const = 0;  // is it on this transport's device?

 private:
  void report(std::string_view verb, int64_t bytes_sent) const;
  at::Tensor flat(const at::Tensor& tensor) const;
  Work started(Work work) const;  // what a verb returns

  int rank_, size_;
  std::string name_;
  ObserverSlot observer_;
  std::shared_ptr<bool> waits_ = std::make_shared<bool>(false);  // its windows know it too
};

// Two groups may have the same ranks and name: each rank counts them, in the order in which all ranks open
// them.
struct GroupKey {
  std::vector<int> ranks;
  std::string name;
  int occurrence = 0;
  auto operator<=>(const GroupKey&) const = default;
};
// The same on all ranks, and another for every other group.
std::string text_of(const GroupKey& key);
class GroupNames {
 public:
  GroupKey next(std::span<const int> ranks, std::string_view name);

 private:
  std::map<GroupKey, int> seen_;
};

// Where `rank` stands in a group of `ranks`. Throws std::logic_error unless they are distinct global ranks
// with it.
int rank_within(std::span<const int> ranks, int rank, int size);
// The offset of each part of a split.
std::vector<int64_t> offsets(std::span<const int64_t> split);

}  // namespace atelier::comm
