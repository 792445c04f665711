// The first pass of a new shape allocates, and an allocator that is short of memory first waits until its
// device has come to rest. Here one does at every allocation of every rank, with sends and receives under
// way: requests come to their end, and are what they are without.
#include <ATen/ops/equal.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm_for_test.h"
#include "pipeline/toy_for_test.h"

namespace atelier::pipeline {
namespace {

// What a rank has under way.
class RestingDevice {
 public:
  RestingDevice() { install(); }
  ~RestingDevice() { current() = nullptr; }
  RestingDevice(const RestingDevice&) = delete;
  RestingDevice& operator=(const RestingDevice&) = delete;

  int waits = 0;  // that found something under way

  // The work of a verb, which is under way from now on.
  template <class Start>
  comm::Work start(const Start& verb) {
    current() = nullptr;  // the transport's own memory is none of the device's
    under_way_.push_back(std::make_shared<comm::Work>(verb()));
    current() = this;
    return comm::Work(std::make_unique<SharedWork>(under_way_.back()));
  }

 private:
  struct SharedWork : comm::Work::Impl {
    std::shared_ptr<comm::Work> work;
    explicit SharedWork(std::shared_ptr<comm::Work> w) : work(std::move(w)) {}
    void wait() override { work->wait(); }
  };
  struct RestingAllocator : c10::Allocator {
    c10::Allocator* inner = c10::GetCPUAllocator();
    c10::DataPtr allocate(size_t n) override {
      if (current()) current()->come_to_rest();
      return inner->allocate(n);
    }
    c10::DeleterFnPtr raw_deleter() const override { return inner->raw_deleter(); }
    void copy_data(void* to, const void* from, std::size_t n) const override { std::memcpy(to, from, n); }
  };

  // Around the allocator that the fake graphs install, whichever comes first.
  static void install() {
    static auto* const allocator = [] {
      const FakeGraphs first;
      auto* made = new RestingAllocator;
      c10::SetCPUAllocator(made, 2);
      return made;
    }();
    static_cast<void>(allocator);
  }
  static RestingDevice*& current() {
    thread_local RestingDevice* device = nullptr;
    return device;
  }
  void come_to_rest() {
    if (under_way_.empty()) return;
    ++waits;
    const auto all = std::exchange(under_way_, {});
    for (const auto& work : all) work->wait();
  }

  std::vector<std::shared_ptr<comm::Work>> under_way_;
};

class RestingTransport : public comm::Transport {
 public:
  RestingTransport(comm::Transport& inner, RestingDevice& device) : inner_(inner), device_(device) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::unique_ptr<comm::Comm> open(std::span<const int> ranks, std::string_view name) override {
    return std::make_unique<RestingGroup>(inner_.open(ranks, name), device_);
  }
  void observe(comm::Observer observer) override { inner_.observe(std::move(observer)); }
  void abort() noexcept override { inner_.abort(); }

 private:
  struct Owned {
    std::unique_ptr<comm::Comm> group;
  };
  struct RestingGroup : Owned, parallel::testing::PassedOn {
    RestingDevice& device;
    RestingGroup(std::unique_ptr<comm::Comm> g, RestingDevice& d)
        : Owned{std::move(g)}, PassedOn(*Owned::group), device(d) {}
    comm::Work all_reduce(at::Tensor& sum) override {
      return device.start([&] { return inner.all_reduce(sum); });
    }
    comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
      return device.start([&] { return inner.all_gather(out, mine, split); });
    }
    comm::Work all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                          std::span<const int64_t> in_split) override {
      return device.start([&] { return inner.all_to_all(out, in, out_split, in_split); });
    }
    comm::Work send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) override {
      return device.start([&] { return inner.send_recv(out, to, in, from); });
    }
    comm::Work send(const at::Tensor& out, int to) override {
      return device.start([&] { return inner.send(out, to); });
    }
    comm::Work recv(at::Tensor& in, int from) override {
      return device.start([&] { return inner.recv(in, from); });
    }
  };
  comm::Transport& inner_;
  RestingDevice& device_;
};

TEST(FirstPass, EndsWhereEveryAllocationWaitsForTheDevice) {
  const ToyRequest requests[] = {{.steps = 4, .is_ancestral = true},
                                 {.rows = 6, .cols = 2, .steps = 3, .seed = 2},
                                 {.text = 7, .steps = 3, .branches = 1, .seed = 3}};
  for (const char* layout :
       {"pipefusion=2, sync", "pipefusion=2", "pipefusion=4, sync", "pipefusion=4",
        "pipefusion=4, patches=5, warmup=2", "pipefusion=2, patches=3, warmup=0", "pipefusion=2, ulysses=2",
        "pipefusion=2, ring=2, sync", "pipefusion=2, kv_gather=2", "cfg=2, pipefusion=2",
        "pipefusion=2, tensor=2", "ulysses=4", "ring=4", "kv_gather=4", "tensor=4", "cfg=2, ring=2",
        "ulysses=4, shard=4", "pipefusion=2, ulysses=2, shard=2, parallel_vae"}) {
    for (const bool skips : {true, false}) {
      SCOPED_TRACE(str(layout, skips ? ", folded" : ""));
      ToyRank::ToySetup s{.config = plan::parse_strategy(layout)};
      s.model.has_skips = skips;
      const auto expected = drawn_by_toy(s, requests);
      std::vector<at::Tensor> drawn;
      std::atomic<int> waits = 0;
      const auto draw = [&](comm::Transport& inner) {
        RestingDevice device;
        RestingTransport transport(inner, device);
        ToyRank rank(s, &transport);
        for (const auto& r : requests) {
          const auto one = rank.draw(r);
          if (inner.rank() == 0) drawn.push_back(one);
        }
        waits += device.waits;
      };
      EXPECT_EQ(parallel::testing::failure_of(plan::world_size(s.config), draw), "");
      ASSERT_EQ(drawn.size(), expected.size());
      for (size_t i = 0; i < drawn.size(); ++i) EXPECT_TRUE(at::equal(drawn[i], expected[i])) << i;
      EXPECT_GT(waits, 0);
    }
  }
}

}  // namespace
}  // namespace atelier::pipeline
