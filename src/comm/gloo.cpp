// Processes as ranks, tensors in CPU memory: the verbs as messages over Gloo's connections.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <future>
#include <numeric>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "base/error.h"
#include "base/partition.h"
#include "comm/checked.h"
#include "comm/gloo_link.h"
#include "comm/peer_monitor.h"
#include "comm/store.h"
#include "comm/sum.h"

namespace atelier::comm {
namespace {

class GlooWork : public Work::Impl {
 public:
  explicit GlooWork(std::vector<GlooLink::PendingMessage> tickets, std::future<void> rest = {})
      : rest_(std::move(rest)), tickets_(std::move(tickets)) {}
  void wait() override {
    if (rest_.valid()) rest_.get();
    for (auto& ticket : tickets_) ticket.wait();
  }

 private:
  std::future<void> rest_;
  std::vector<GlooLink::PendingMessage> tickets_;
};

Work running(std::vector<GlooLink::PendingMessage> tickets, std::future<void> rest = {}) {
  return Work(std::make_unique<GlooWork>(std::move(tickets), std::move(rest)));
}

class GlooComm : public CheckedComm {
 public:
  GlooComm(std::shared_ptr<GlooLink> link, std::shared_ptr<PeerMonitor> watch, ObserverSlot observer)
      : CheckedComm(link->place().rank, static_cast<int>(link->place().key.ranks.size()),
                    link->place().key.name, std::move(observer)),
        link_(std::move(link)),
        monitor_(std::move(watch)) {}

  void abort() noexcept override {
    monitor_->abort_group(*link_, link_->place().key.ranks[rank()], PeerStatus::kAborted);
  }

  void check_alive() override { link_->check_alive(); }

 protected:
  using Tickets = std::vector<GlooLink::PendingMessage>;
  Work start_all_reduce(at::Tensor sum) override;
  Work start_all_gather(at::Tensor out, at::Tensor mine, Split split) override;
  Work start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) override;
  Work start_send_recv(at::Tensor out, int to, at::Tensor in, int from) override;
  Work start_send(at::Tensor out, int to) override { return start_send_recv(std::move(out), to, {}, -1); }
  Work start_recv(at::Tensor in, int from) override { return start_send_recv({}, -1, std::move(in), from); }
  Work start_broadcast(at::Tensor value, int root) override;
  void start_barrier() override;
  bool accepts(const at::Tensor& tensor) const override { return tensor.is_cpu(); }

 private:
  void send_part(Tickets& tickets, const at::Tensor& part, int to) {
    if (part.numel() > 0) tickets.push_back(link_->send(part, to, link_->next_send(to)));
  }
  void recv_part(Tickets& tickets, const at::Tensor& part, int from) {
    if (part.numel() > 0) tickets.push_back(link_->recv(part, from, link_->next_recv(from)));
  }

  std::shared_ptr<GlooLink> link_;
  std::shared_ptr<PeerMonitor> monitor_;
};

// Each rank owns a share: it receives everybody's numbers for it, adds them, and sends the sum to everybody.
// A thread waits and adds, so that peers advance whether or not this rank waits for its Work.
Work GlooComm::start_all_reduce(at::Tensor sum) {
  const Partition shares{sum.numel(), size()};
  const auto share = [&](int r) { return sum.narrow(0, shares[r].begin, shares[r].size); };
  const auto own = share(rank());
  const auto received = at::empty({size(), own.numel()}, sum.options());
  Tickets parts, sums;
  std::vector<std::pair<int, GlooLink::MessageNumber>>
      announced;  // of the sum, numbered now: other verbs may follow at once
  for (int r = 0; r < size(); ++r) {
    if (r == rank()) continue;
    recv_part(parts, received.select(0, r), r);
    send_part(sums, share(r), r);
    if (own.numel() > 0) announced.emplace_back(r, link_->next_send(r));
    // The share may be overwritten while it is still being sent: its owner answers only when it has all of
    // it.
    recv_part(sums, share(r), r);
  }
  if (own.numel() == 0) return running(std::move(sums));
  auto add = [link = link_, own, received, announced, mine = rank(), from = std::move(parts)]() mutable {
    for (auto& part : from) part.wait();
    std::vector<const void*> all;
    for (int64_t r = 0; r < received.size(0); ++r) {
      all.push_back(r == mine ? own.data_ptr() : received.select(0, r).data_ptr());
    }
    add_parts(own.data_ptr(), all, own.numel(), own.scalar_type());
    Tickets to;
    for (const auto& [r, number] : announced) to.push_back(link->send(own, r, number));
    for (auto& ticket : to) ticket.wait();
  };
  return running(std::move(sums), std::async(std::launch::async, std::move(add)));
}

Work GlooComm::start_all_gather(at::Tensor out, at::Tensor mine, Split split) {
  const auto begin = offsets(split);
  Tickets tickets;
  for (int r = 0; r < size(); ++r) {
    const auto part = out.narrow(0, begin[r], split[r]);
    if (r == rank()) {
      part.copy_(mine);
    } else {
      recv_part(tickets, part, r);
      send_part(tickets, mine, r);
    }
  }
  return running(std::move(tickets));
}

Work GlooComm::start_all_to_all(at::Tensor out, at::Tensor in, Split out_split, Split in_split) {
  const auto out_begin = offsets(out_split), in_begin = offsets(in_split);
  Tickets tickets;
  for (int r = 0; r < size(); ++r) {
    const auto to = out.narrow(0, out_begin[r], out_split[r]), from = in.narrow(0, in_begin[r], in_split[r]);
    if (r == rank()) {
      to.copy_(from);
    } else {
      recv_part(tickets, to, r);
      send_part(tickets, from, r);
    }
  }
  return running(std::move(tickets));
}

Work GlooComm::start_send_recv(at::Tensor out, int to, at::Tensor in, int from) {
  Tickets tickets;
  if (from >= 0) recv_part(tickets, in, from);
  if (to >= 0) send_part(tickets, out, to);
  return running(std::move(tickets));
}

Work GlooComm::start_broadcast(at::Tensor value, int root) {
  Tickets tickets;
  if (rank() != root) recv_part(tickets, value, root);
  for (int r = 0; rank() == root && r < size(); ++r) {
    if (r != root) send_part(tickets, value, r);
  }
  return running(std::move(tickets));
}

void GlooComm::start_barrier() {
  const Split one(size(), 1);
  start_all_to_all(at::empty({size()}, at::kByte), at::zeros({size()}, at::kByte), one, one).wait();
}

class GlooTransport : public Transport {
 public:
  explicit GlooTransport(const Rendezvous& rendezvous)
      : rendezvous_(rendezvous),
        store_(open_store(rendezvous)),
        device_(gloo_device(listening_host(rendezvous))) {
    monitor_ = std::make_shared<PeerMonitor>(link("watch", everyone()));
    check_messages();
  }
  ~GlooTransport() override = default;

  int rank() const override { return rendezvous_.rank; }
  int size() const override { return rendezvous_.size; }

  std::unique_ptr<Comm> open(std::span<const int> ranks, std::string_view name) override {
    monitor_->check_alive();
    auto group = link(name, ranks);
    monitor_->add(group);
    group->on_alarm([watch = std::weak_ptr(monitor_), broken = std::weak_ptr(group)](int culprit) {
      const auto alive = watch.lock();
      const auto link = broken.lock();
      if (alive && link) alive->abort_group(*link, culprit, PeerStatus::kSilent);
    });
    return std::make_unique<GlooComm>(std::move(group), monitor_, observer_);
  }

  void observe(Observer observer) override { *observer_ = std::move(observer); }
  void abort() noexcept override { monitor_->abort_all(); }

 private:
  std::vector<int> everyone() const {
    std::vector<int> ranks(rendezvous_.size);
    std::iota(ranks.begin(), ranks.end(), 0);
    return ranks;
  }

  std::shared_ptr<GlooLink> link(std::string_view name, std::span<const int> ranks) {
    const int mine = rank_within(ranks, rendezvous_.rank, rendezvous_.size);
    return std::make_shared<GlooLink>(store_, GroupPlace{names_.next(ranks, name), mine}, device_,
                                      rendezvous_.timeout);
  }

  // The headers this was compiled with need not be those of the Gloo inside libtorch: prove that numbers
  // arrive.
  void check_messages() {
    const auto comm = open(everyone(), "start-up check");
    auto sum = at::zeros({rendezvous_.size}, at::kLong);
    sum[rendezvous_.rank].fill_(rendezvous_.rank + 1);
    comm->all_reduce(sum).wait();
    for (int r = 0; r < rendezvous_.size; ++r) {
      if (sum[r].item<int64_t>() == r + 1) continue;
      throw Error(Kind::kPeer,
                  "messages between processes arrive wrong: this program was built with headers of another "
                  "Gloo than the one inside libtorch; rebuild it with the matching headers");
    }
  }

  Rendezvous rendezvous_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::shared_ptr<gloo::transport::Device> device_;
  GroupNames names_;
  ObserverSlot observer_ = std::make_shared<Observer>();
  std::shared_ptr<PeerMonitor> monitor_;
};

}  // namespace

std::unique_ptr<Transport> connect_gloo(const Rendezvous& rendezvous) {
  ignore_broken_pipes();
  return std::make_unique<GlooTransport>(rendezvous);
}

}  // namespace atelier::comm
