// Messages travel while a rank computes, unless that is switched off; what is drawn is the same.
#include <ATen/ops/equal.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "parallel/comm_for_test.h"
#include "pipeline/testing.h"
#include "pipeline/toy_for_test.h"

namespace atelier::pipeline {
namespace {

// Of one rank, which is one thread here.
struct WatchedRank {
  int under_way = 0;               // messages that were started and not waited for
  int64_t computed_meanwhile = 0;  // operations on tensors that began while there were any
  static WatchedRank& here() {
    thread_local WatchedRank rank;
    return rank;
  }
};

// Started, and under way until it is waited for.
struct WatchedWork : comm::Work::Impl {
  comm::Work inner;
  explicit WatchedWork(comm::Work work) : inner(std::move(work)) { ++WatchedRank::here().under_way; }
  ~WatchedWork() override { --WatchedRank::here().under_way; }
  void wait() override { inner.wait(); }
};
comm::Work watched(comm::Work work) {
  return work.is_under_way() ? comm::Work(std::make_unique<WatchedWork>(std::move(work))) : std::move(work);
}

class WatchedTransport : public comm::Transport {
 public:
  explicit WatchedTransport(comm::Transport& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::unique_ptr<comm::Comm> open(std::span<const int> ranks, std::string_view name) override {
    return std::make_unique<WatchedGroup>(inner_.open(ranks, name));
  }
  void observe(comm::Observer observer) override { inner_.observe(std::move(observer)); }
  void abort() noexcept override { inner_.abort(); }

 private:
  struct WatchedOwner {
    std::unique_ptr<comm::Comm> group;
  };
  struct WatchedGroup : WatchedOwner, parallel::testing::PassedOn {
    explicit WatchedGroup(std::unique_ptr<comm::Comm> g)
        : WatchedOwner{std::move(g)}, PassedOn(*WatchedOwner::group) {}
    comm::Work all_reduce(at::Tensor& sum) override { return watched(inner.all_reduce(sum)); }
    comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
      return watched(inner.all_gather(out, mine, split));
    }
    comm::Work all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                          std::span<const int64_t> in_split) override {
      return watched(inner.all_to_all(out, in, out_split, in_split));
    }
    comm::Work send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) override {
      return watched(inner.send_recv(out, to, in, from));
    }
    comm::Work send(const at::Tensor& out, int to) override { return watched(inner.send(out, to)); }
    comm::Work recv(at::Tensor& in, int from) override { return watched(inner.recv(in, from)); }
  };
  comm::Transport& inner_;
};

bool computes(std::string_view operation) {
  for (const std::string_view one : {"aten::linear", "aten::mm", "aten::addmm", "aten::bmm", "aten::matmul",
                                     "aten::scaled_dot_product_attention", "aten::mul", "aten::mul_"}) {
    if (operation == one) return true;
  }
  return false;
}

std::unique_ptr<at::ObserverContext> note_operation(const at::RecordFunction& operation) {
  auto& rank = WatchedRank::here();
  if (rank.under_way > 0 && computes(operation.name())) ++rank.computed_meanwhile;
  return nullptr;
}

struct Watched {
  std::vector<at::Tensor> drawn;
  int64_t computed_meanwhile = 0;  // of all ranks
};

// Draws on all ranks, `draw` the pictures of one.
Watched draw_watched(const plan::ParallelConfig& layout,
                     const std::function<std::vector<at::Tensor>(comm::Transport&)>& draw) {
  Watched out;
  std::atomic<int64_t> meanwhile = 0;
  const auto failure = parallel::testing::failure_of(plan::world_size(layout), [&](comm::Transport& inner) {
    WatchedRank::here() = {};
    const auto handle = at::addThreadLocalCallback(
        at::RecordFunctionCallback(note_operation).scopes({at::RecordScope::FUNCTION}));
    WatchedTransport transport(inner);
    auto drawn = draw(transport);
    at::removeCallback(handle);
    if (inner.rank() == 0) out.drawn = std::move(drawn);
    meanwhile += WatchedRank::here().computed_meanwhile;
  });
  EXPECT_EQ(failure, "") << plan::to_string(layout);
  out.computed_meanwhile = meanwhile;
  return out;
}

Watched draw_toy(const std::string& layout) {
  const ToyRank::ToySetup setup{.config = plan::parse_strategy(layout)};
  return draw_watched(setup.config, [&](comm::Transport& transport) {
    ToyRank rank(setup, &transport);
    return std::vector{rank.draw({.steps = 3, .is_ancestral = true}),
                       rank.draw({.rows = 6, .cols = 2, .steps = 3, .seed = 2})};
  });
}

// A model whose single blocks multiply while keys and heads travel.
Watched draw_flux(const std::string& layout) {
  const auto model = ModelRepo::open(kGolden / "model");
  const auto config = plan::parse_strategy(layout);
  const auto plan = plan::plan_for(config, model.facts());
  return draw_watched(config, [&](comm::Transport& transport) {
    parallel::ParallelContext parallel_context(plan, &transport, nn::SdpaBackend::kAuto);
    Pipeline pipeline(model, parallel_context, plan.chunks, {});
    ActivationRecorder probes;
    pipeline.generate(request_for({"a red fox"}, {5}), {.probes = &probes});
    const auto& all = probes.tensors();
    return all.contains("latents.final") ? std::vector{all.at("latents.final")} : std::vector<at::Tensor>{};
  });
}

void expect_switch(const char* layout, const std::function<Watched(const std::string&)>& draw) {
  SCOPED_TRACE(layout);
  const auto on = draw(layout), off = draw(std::string(layout) + ", overlap_p2p_comm=false");
  EXPECT_GT(on.computed_meanwhile, 0);
  EXPECT_EQ(off.computed_meanwhile, 0);
  ASSERT_FALSE(on.drawn.empty());
  ASSERT_EQ(on.drawn.size(), off.drawn.size());
  for (size_t i = 0; i < on.drawn.size(); ++i) EXPECT_TRUE(at::equal(on.drawn[i], off.drawn[i])) << i;
}

TEST(Overlap, SwitchedOffNothingTravelsWhileARankComputesAndTheBitsAreTheSame) {
  for (const char* layout : {"ring=2", "ring=3", "pipefusion=2", "pipefusion=3", "pipefusion=2, sync",
                             "pipefusion=2, patches=3, warmup=0", "cfg=2, ring=2", "pipefusion=2, ring=2",
                             "pipefusion=2, ulysses=2, parallel_vae"})
    expect_switch(layout, draw_toy);
  for (const char* layout : {"kv_gather=2, collective", "kv_gather=3, collective", "ulysses=2, collective",
                             "cfg=1, ulysses=3, collective", "pipefusion=2, sync, kv_gather=2, collective"})
    expect_switch(layout, draw_flux);
}

}  // namespace
}  // namespace atelier::pipeline
