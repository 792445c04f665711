// Argument checks and the arithmetic of events, once for all transports.
#include "comm/checked.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/partition.h"

namespace atelier::comm {
namespace {

int64_t total(std::span<const int64_t> split) {
  return std::accumulate(split.begin(), split.end(), int64_t{0});
}

void check_split(std::span<const int64_t> split, int size, const at::Tensor& whole) {
  ENSURE(std::ssize(split) == size);
  ENSURE(std::all_of(split.begin(), split.end(), [](int64_t n) { return n >= 0; }));
  ENSURE(total(split) == whole.numel());
}

}  // namespace

GroupKey GroupNames::next(std::span<const int> ranks, std::string_view name) {
  GroupKey key{{ranks.begin(), ranks.end()}, std::string(name)};
  key.occurrence = seen_[key]++;
  return key;
}

std::string text_of(const GroupKey& key) {
  std::string text = str(key.occurrence);  // the name comes last: it alone may hold any character
  char before = '/';
  for (const int rank : key.ranks) text += str(std::exchange(before, ','), rank);
  return str(text, "/", key.name);
}

int rank_within(std::span<const int> ranks, int rank, int size) {
  const std::set<int> distinct(ranks.begin(), ranks.end());
  ENSURE(!ranks.empty() && std::ssize(distinct) == std::ssize(ranks));
  ENSURE(*distinct.begin() >= 0 && *distinct.rbegin() < size && distinct.contains(rank));
  return static_cast<int>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin());
}

std::vector<int64_t> offsets(std::span<const int64_t> split) {
  std::vector<int64_t> begin(split.size());
  std::exclusive_scan(split.begin(), split.end(), begin.begin(), int64_t{0});
  return begin;
}

Kind failure_kind(const std::exception& error) {
  const bool is_memory = std::string_view(error.what()).find("out of memory") != std::string_view::npos;
  return is_memory ? Kind::kCapacity : Kind::kPeer;
}

CheckedComm::CheckedComm(int rank, int size, std::string name, ObserverSlot observer)
    : rank_(rank), size_(size), name_(std::move(name)), observer_(std::move(observer)) {}

void CheckedComm::report(std::string_view verb, int64_t bytes_sent) const {
  if (*observer_) (*observer_)(Event{verb, name_, bytes_sent, size_ - 1});
}

at::Tensor CheckedComm::flat(const at::Tensor& tensor) const {
  ENSURE(tensor.defined() && tensor.is_contiguous() && accepts(tensor));
  return tensor.detach().view({-1});
}

Work CheckedComm::started(Work work) const {
  if (*waits_) work.wait();
  return work;
}

Work CheckedComm::all_reduce(at::Tensor& sum) {
  const auto all = flat(sum);
  // The least that any algorithm sends: each rank's share out to its owner, then the sum of its own share to
  // everybody.
  const int64_t own = Partition{all.numel(), size_}[rank_].size;
  report("all_reduce", (all.numel() - own + own * (size_ - 1)) * all.element_size());
  check_alive();
  if (size_ == 1 || all.numel() == 0) return {};
  return started(start_all_reduce(all));
}

Work CheckedComm::all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) {
  const auto all = flat(out), part = flat(mine);
  check_split(split, size_, all);
  ENSURE(part.numel() == split[rank_] && part.scalar_type() == all.scalar_type());
  report("all_gather", split[rank_] * (size_ - 1) * part.element_size());
  check_alive();
  if (size_ == 1) all.copy_(part);
  if (size_ == 1 || all.numel() == 0) return {};
  return started(start_all_gather(all, part, {split.begin(), split.end()}));
}

Work CheckedComm::all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                             std::span<const int64_t> in_split) {
  const auto to = flat(out), from = flat(in);
  check_split(out_split, size_, to);
  check_split(in_split, size_, from);
  ENSURE(to.scalar_type() == from.scalar_type() && out_split[rank_] == in_split[rank_]);
  report("all_to_all", (from.numel() - in_split[rank_]) * from.element_size());
  check_alive();
  if (size_ == 1) to.copy_(from);
  if (size_ == 1) return {};
  return started(
      start_all_to_all(to, from, {out_split.begin(), out_split.end()}, {in_split.begin(), in_split.end()}));
}

Work CheckedComm::send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) {
  ENSURE(to >= -1 && to < size_ && from >= -1 && from < size_);
  ENSURE((to == rank_) == (from == rank_));
  const bool sends = to >= 0 && out.numel() > 0, receives = from >= 0 && in.numel() > 0;
  const bool is_self = to == rank_;
  const at::Tensor flat_out = sends ? flat(out) : at::Tensor(), flat_in = receives ? flat(in) : at::Tensor();
  report("send_recv", sends && !is_self ? static_cast<int64_t>(out.nbytes()) : 0);
  check_alive();
  if (is_self) ENSURE(out.numel() == in.numel());
  if (is_self && sends) flat_in.copy_(flat_out);
  if (is_self || (!sends && !receives)) return {};
  return started(start_send_recv(flat_out, sends ? to : -1, flat_in, receives ? from : -1));
}

Work CheckedComm::send(const at::Tensor& out, int to) {
  ENSURE(to >= 0 && to < size_ && to != rank_);
  const auto message = flat(out);
  report("send", static_cast<int64_t>(message.nbytes()));
  check_alive();
  return message.numel() > 0 ? started(start_send(message, to)) : Work{};
}

Work CheckedComm::recv(at::Tensor& in, int from) {
  ENSURE(from >= 0 && from < size_ && from != rank_);
  const auto message = flat(in);
  report("recv", 0);
  check_alive();
  return message.numel() > 0 ? started(start_recv(message, from)) : Work{};
}

void CheckedComm::broadcast(at::Tensor& value, int root) {
  ENSURE(root >= 0 && root < size_);
  const auto message = flat(value);
  report("broadcast", root == rank_ ? static_cast<int64_t>(message.nbytes()) * (size_ - 1) : 0);
  check_alive();
  if (size_ > 1 && message.numel() > 0) start_broadcast(message, root).wait();
}

void CheckedComm::barrier() {
  report("barrier", 0);
  check_alive();
  if (size_ > 1) start_barrier();
}

std::unique_ptr<Window> CheckedComm::window(int64_t bytes) {
  ENSURE(bytes > 0);
  check_alive();
  auto window = open_window(bytes);
  if (window) {
    window->waits_ = waits_;
    window->tell_ = [this](int64_t stored) {
      report("stores", stored);
      check_alive();
    };
  }
  return window;
}

}  // namespace atelier::comm
