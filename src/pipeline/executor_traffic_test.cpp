// What travels while one picture is drawn: calls and bytes of every verb under whole layouts, against
// arithmetic.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <thread>

#include "base/partition.h"
#include "comm/comm.h"
#include "pipeline/testing.h"
#include "plan/parallel_config.h"
#include "plan/picture_rows.h"

namespace atelier::pipeline {
namespace {

using plan::Axis;
using plan::ParallelConfig;

struct Count {
  int64_t calls = 0, bytes = 0;  // of all ranks
  bool operator==(const Count&) const = default;
};
using Traffic = std::map<std::string, Count>;  // by verb

std::string text_of(const Traffic& t) {
  std::string out;
  for (const auto& [verb, c] : t) out += str(verb, " ", c.calls, " x, ", c.bytes, " bytes; ");
  return out;
}

// Sizes of the recorded model (tests/goldens/flux_dev) and of the picture that is drawn.
constexpr int64_t kWide = sizeof(float);
constexpr int64_t kHeads = 4, kHeadWidth = 16, kWidth = kHeads * kHeadWidth, kDoubles = 2, kBlocks = 5;
constexpr int64_t kTextWidth = 56, kPooledWidth = 24, kLatentWidth = 64;
constexpr int64_t kText = 7, kRows = 7, kCols = 5, kImage = kRows * kCols;
constexpr int kSteps = 3;

bool is_decoded_by_rows(const ParallelConfig& degrees) {
  return plan::codes_by_rows(degrees, {.latent_rows = 2 * kRows, .pixels = 256 * kImage, .is_device = false});
}

std::vector<request::Request> batch_of(int branches) {
  auto batch = request_for({"two paper boats"}, {5});
  auto& r = batch.front();
  r.height = 16 * kRows, r.width = 16 * kCols, r.num_inference_steps = kSteps, r.max_sequence_length = kText;
  if (branches == 2) r.negative_prompt = "rain", r.true_cfg_scale = 3;
  return batch;
}

Traffic drawn(const ParallelConfig& degrees, request::Requests batch) {
  const auto folder = ModelRepo::open(kGolden / "model");
  const auto plan = plan::plan_for(degrees, folder.facts());
  auto transports = comm::connect_local(plan::world_size(degrees), {.timeout = std::chrono::seconds(20)});
  Traffic all;
  std::mutex mutex;
  std::vector<std::jthread> threads;
  for (auto& transport : transports) {
    threads.emplace_back([&, t = transport.get()] {
      try {
        parallel::ParallelContext parallel_context(plan, t, nn::SdpaBackend::kAuto);
        Pipeline pipeline(folder, parallel_context, plan.chunks, {});
        t->observe([&](const comm::Event& e) {
          const std::scoped_lock lock(mutex);
          auto& c = all[std::string(e.verb)];
          ++c.calls, c.bytes += e.bytes_sent;
        });
        pipeline.generate(batch, {});
        t->observe({});
      } catch (const std::exception& e) {
        ADD_FAILURE() << e.what();
        t->abort();
      }
    });
  }
  threads.clear();
  return all;
}

int64_t rounded_up(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Weights of a block without its tables, each tensor at a multiple of 256 bytes.
int64_t block_bytes(int64_t block) {
  const auto linear = [](int64_t in, int64_t out) {
    return rounded_up(in * out * kWide, 256) + rounded_up(out * kWide, 256);
  };
  const int64_t norms = 2 * rounded_up(kHeadWidth * kWide, 256), w = kWidth;
  if (block >= kDoubles) return linear(w, 3 * w) + linear(w, 4 * w) + linear(5 * w, w) + norms;
  return 2 * (linear(w, 3 * w) + linear(w, w) + linear(w, 4 * w) + linear(4 * w, w) + norms);
}

// The closed form: what one rank's design needs, and nothing else.
class Expected {
 public:
  Expected(const ParallelConfig& d, int branches) : d_(d), branches_(branches), own_(branches / d.cfg) {
    for (int rank = 0; rank < plan::world_size(d); ++rank) add_rank(plan::Mesh(mesh_sizes(d), rank));
  }
  Traffic traffic;

 private:
  const ParallelConfig& d_;
  const int branches_, own_;  // of a step; those that one rank computes

  int parts() const { return sequence_size(d_); }
  int patches() const { return patch_count(d_); }
  int replica() const { return plan::world_size(d_) / d_.data; }
  void count(const char* verb, int64_t calls, int64_t numbers, int64_t each = kWide) {
    if (calls) traffic[verb].calls += calls, traffic[verb].bytes += numbers * each;
  }

  // Tokens of a sequence rank in a pass over one patch (-1: all). Text travels with patch 0.
  int64_t image(int rank, int patch) const {
    int64_t n = 0;
    for (int p = 0; p < patches(); ++p) {
      const Range whole = Partition{kImage, patches()}[p];
      if (patch < 0 || p == patch) n += Partition{whole.size, parts()}[rank].size;
    }
    return n;
  }
  int64_t tokens(int rank, int patch) const {
    return image(rank, patch) + (patch <= 0 ? Partition{kText, parts()}[rank].size : 0);
  }
  std::vector<int> passes() const {
    std::vector<int> all;
    for (int step = 0; step < kSteps; ++step) {
      const bool whole = patches() == 1 || step < d_.warmup;
      for (int p = 0; p < (whole ? 1 : patches()); ++p) all.push_back(whole ? -1 : p);
    }
    return all;
  }

  void add_rank(const plan::Mesh& m) {
    const int stage = m.index(Axis::kPipeline);
    const Range blocks = Partition{kBlocks, d_.pipeline}[stage];
    add_request(m, blocks);
    for (const int pass : passes()) {
      for (int b = 0; b < own_; ++b) {
        for (int64_t i = blocks.begin; i < blocks.end(); ++i) add_block(m, i, pass);
        if (d_.pipeline > 1) add_hop(m, pass);
      }
      if (stage == 0 && d_.cfg == 2) count("all_gather", 1, image(m.sequence_rank(), pass) * kLatentWidth);
    }
    add_shards(blocks);
  }

  // Text of both branches to everybody, the tables of all steps within a stage, the latents at the end.
  void add_request(const plan::Mesh& m, Range blocks) {
    const bool leads = m.rank() % replica() == 0;
    if (replica() > 1) {
      const int64_t others = leads ? replica() - 1 : 0;
      const int64_t tensors =
          rounded_up(kText * kTextWidth * kWide, kTensorUnit) + rounded_up(kPooledWidth * kWide, kTensorUnit);
      count("broadcast", 1, others * 2, sizeof(int64_t));  // of the header and of all tensors
      count("broadcast", 1, others * (kHeaderUnit + branches_ * tensors), 1);
    }
    int64_t columns = blocks.end() == kBlocks ? 2 * kWidth : 0;
    for (int64_t i = blocks.begin; i < blocks.end(); ++i) columns += (i < kDoubles ? 12 : 3) * kWidth;
    if (const int group = parts() * d_.tensor; group > 1) {
      const int64_t mine =
          Partition{columns, group}[m.sequence_rank() * d_.tensor + m.index(Axis::kTensor)].size;
      count("all_gather", own_, own_ * mine * kSteps * (group - 1));
    }
    if (parts() > 1 && m.index(Axis::kPipeline) == 0) {
      count("all_gather", 1, image(m.sequence_rank(), -1) * kLatentWidth * (parts() - 1));
    }
    if (d_.pipeline > 1 && is_decoded_by_rows(d_)) {
      count("broadcast", 1, leads ? kImage * kLatentWidth * (replica() - 1) : 0);
    }
  }

  void add_block(const plan::Mesh& m, int64_t block, int pass) {
    const int me = m.sequence_rank(), u = m.index(Axis::kUlysses), first = me - u;
    const Partition heads{Partition{kHeads, d_.tensor}[m.index(Axis::kTensor)].size, d_.ulysses};
    if (d_.ulysses > 1) {
      int64_t in = 0, out = 0;
      for (int p = 0; p < d_.ulysses; ++p) {
        if (p == u) continue;
        in += 3 * tokens(me, pass) * heads[p].size * kHeadWidth;
        out += tokens(first + p, pass) * heads[u].size * kHeadWidth;
      }
      count(d_.collective ? "all_to_all" : "stores", 2, in + out);
    }
    if (d_.kv_gather > 1) {
      int64_t n = 0;
      for (int k = 0; k < d_.ulysses; ++k) n += tokens(first + k, pass);
      // Two gathers, or the barriers before and behind stores.
      count(d_.collective || d_.ulysses > 1 ? "all_gather" : "stores", 2,
            n * 2 * heads[u].size * kHeadWidth * (d_.kv_gather - 1));
    }
    for (int hop = 0; hop + 1 < d_.ring; ++hop) {
      const int owner = (m.index(Axis::kRing) + d_.ring - hop) % d_.ring;
      const int together = d_.kv_gather * d_.ulysses;
      int64_t n = 0;
      for (int k = 0; k < together; ++k) n += tokens(owner * together + k, pass);
      count("send_recv", 1, n * 2 * heads[u].size * kHeadWidth);
    }
    if (d_.tensor > 1) {
      const int64_t text = tokens(me, pass) - image(me, pass);
      if (block >= kDoubles) return add_sum(m, tokens(me, pass) * kWidth);
      for (int pair = 0; pair < 2; ++pair) add_sum(m, text * kWidth), add_sum(m, image(me, pass) * kWidth);
    }
  }
  void add_sum(const plan::Mesh& m, int64_t numbers, int64_t each = kWide) {
    const int64_t own = Partition{numbers, d_.tensor}[m.index(Axis::kTensor)].size;
    count("all_reduce", 1, numbers - own + own * (d_.tensor - 1), each);
  }
  // Hidden state to the next stage; the last one sends the prediction, image tokens only.
  void add_hop(const plan::Mesh& m, int pass) {
    const int me = m.sequence_rank();
    const bool last = m.index(Axis::kPipeline) + 1 == d_.pipeline;
    count("send", 1, last ? image(me, pass) * kLatentWidth : tokens(me, pass) * kWidth);
    count("recv", 1, 0);
  }
  // Every pass gathers every block, unless both of two blocks can stay.
  void add_shards(Range blocks) {
    if (d_.shard < 2) return;
    const auto times = blocks.size > 2 ? static_cast<int64_t>(passes().size()) * own_ : 1;
    for (int64_t i = blocks.begin; i < blocks.end(); ++i) {
      count("all_gather", times,
            times * rounded_up(block_bytes(i), 256 * d_.shard) / d_.shard * (d_.shard - 1), 1);
    }
  }
};

// The decoder by rows over `ranks`, each with some: two halo rows at each border and convolution, three
// moments per group norm, keys and values of the middle once round, the picture at the end.
Traffic rows_of_decoder(int ranks) {
  const int64_t n = ranks, channels[] = {24, 16, 8, 8}, groups = 8, pixels = 3, latent = 16;
  int64_t width = 2 * kCols, halo = 0, convolutions = 0, norms = 0;
  const auto convolution = [&](int64_t in) { ++convolutions, halo += 2 * (n - 1) * in * width; };
  const auto resnet = [&](int64_t in, int64_t out) { convolution(in), convolution(out), norms += 2; };
  convolution(latent);
  resnet(24, 24), resnet(24, 24), ++norms;  // middle: the attention has a norm of its own
  for (int level = 0; level < 4; ++level) {
    resnet(level == 0 ? 24 : channels[level - 1], channels[level]);
    resnet(channels[level], channels[level]);
    if (level < 3) width *= 2, convolution(channels[level]);
  }
  ++norms, convolution(channels[3]);
  Traffic t;
  const int64_t tokens = 4 * kRows * kCols;
  t["send_recv"] = {n * 2 * convolutions + n * (n - 1), (halo + (n - 1) * tokens * 2 * 24) * kWide};
  for (int r = 0; r < ranks; ++r) {
    const int64_t all = 3 * groups, own = Partition{all, ranks}[r].size;
    t["all_reduce"].calls += norms;
    t["all_reduce"].bytes += norms * (all - own + own * (n - 1)) * static_cast<int64_t>(sizeof(double));
  }
  t["all_gather"] = {n, 256 * kRows * kCols * pixels * (n - 1) * kWide};
  return t;
}

void expect_arithmetic(const std::string& layout, int branches) {
  const auto d = plan::parse_strategy(layout);
  Traffic expected = Expected(d, branches).traffic;
  if (is_decoded_by_rows(d)) {
    for (const auto& [verb, c] : rows_of_decoder(plan::world_size(d) / d.data)) {
      expected[verb].calls += c.calls, expected[verb].bytes += c.bytes;
    }
  }
  const auto seen = drawn(d, batch_of(branches));
  EXPECT_EQ(seen, expected) << layout << "\n seen     " << text_of(seen) << "\n expected "
                            << text_of(expected);
}

TEST(Traffic, OneRankSaysNothing) {
  EXPECT_TRUE(drawn({}, batch_of(2)).empty());
}

TEST(Traffic, OfTheSequenceAxesIsWhatArithmeticSays) {
  for (const char* layout : {"ulysses=2", "ulysses=2, collective", "ulysses=3", "ring=2", "ring=3",
                             "ulysses=2, ring=2", "kv_gather=2", "kv_gather=3", "kv_gather=3, collective",
                             "kv_gather=2, ulysses=2", "kv_gather=2, ring=2"})
    expect_arithmetic(layout, 1);
}

TEST(Traffic, OfTensorAndGuidanceIsWhatArithmeticSays) {
  expect_arithmetic("tensor=3", 1);
  expect_arithmetic("tensor=2, ring=2", 1);
  expect_arithmetic("tensor=2, kv_gather=2", 1);
  for (const char* layout : {"cfg=2", "cfg=2, ulysses=2", "cfg=2, kv_gather=2", "data=2, cfg=2", "ring=2"})
    expect_arithmetic(layout, 2);
}

TEST(Traffic, OfStagesIsWhatArithmeticSays) {
  for (const char* layout : {"pipefusion=2", "pipefusion=3, patches=4", "pipefusion=2, warmup=0",
                             "pipefusion=2, sync", "pipefusion=2, patches=3, warmup=2, ulysses=2",
                             "pipefusion=2, ring=2", "pipefusion=2, kv_gather=2"}) {
    expect_arithmetic(layout, 1);
  }
  expect_arithmetic("cfg=2, pipefusion=2", 2);
}

TEST(Traffic, OfWeightShardsIsWhatArithmeticSays) {
  expect_arithmetic("ulysses=2, shard=2", 1);
  expect_arithmetic("ring=2, ulysses=2, shard=2", 2);
  expect_arithmetic("pipefusion=2, ring=2, shard=2", 1);
  expect_arithmetic("kv_gather=2, shard=2", 1);
}

TEST(Traffic, OfPictureRowsIsWhatArithmeticSays) {
  for (const char* layout : {"ulysses=2, parallel_vae", "ulysses=2, parallel_vae=false",
                             "pipefusion=2, parallel_vae=false", "ulysses=4, parallel_vae"})
    expect_arithmetic(layout, 1);
  expect_arithmetic("pipefusion=3, parallel_vae", 1);
  expect_arithmetic("cfg=2, ring=2, parallel_vae", 2);
}

}  // namespace
}  // namespace atelier::pipeline
