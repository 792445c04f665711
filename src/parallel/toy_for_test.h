// A small two-stream transformer on raw seams, and ranks as threads: what the tests of the strategies run.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/comm.h"
#include "nn/attention.h"
#include "nn/rope.h"
#include "nn/seams.h"

namespace atelier::parallel::testing {

// Runs the body on one thread per rank; the first rank's message of what went wrong, empty if nothing did.
inline std::string failure_of(int size, const std::function<void(comm::Transport&)>& body) {
  auto transports =
      comm::connect_local(size, {.rendezvous_sends = true, .timeout = std::chrono::seconds(20)});
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      const c10::InferenceMode guard;
      at::set_num_threads(1);
      auto& transport = *transports[static_cast<size_t>(r)];
      try {
        body(transport);
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(r)] = std::string(error.what()).substr(0, 300);
        transport.abort();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors) {
    if (!error.empty()) return error;
  }
  return {};
}

inline at::Tensor noise(at::IntArrayRef sizes, uint64_t seed, at::ScalarType type = at::kDouble) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(type));
}

// max |a - b| over the rms of b.
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.square().mean().sqrt()).item<double>();
}

// This rank's rows of a whole token-major tensor, and back.
inline at::Tensor cut(const at::Tensor& whole, const std::vector<Range>& held) {
  std::vector<at::Tensor> parts{whole.narrow(0, 0, 0)};
  for (const Range& r : held) parts.push_back(whole.narrow(0, r.begin, r.size));
  return at::cat(parts);
}
inline void put_back(at::Tensor& whole, const at::Tensor& part, const std::vector<Range>& held) {
  int64_t row = 0;
  for (const Range& r : held) {
    whole.narrow(0, r.begin, r.size).copy_(part.narrow(0, row, r.size));
    row += r.size;
  }
}

struct Toy {
  std::vector<int64_t> tokens{7, 13};  // text, image
  int64_t heads = 5, width = 4, channels = 6, batch = 2;
  int blocks = 2;
  int patches = 1, warmup = 1, steps = 2;
  bool last_asks_image_only = false;
  bool is_e4m3 = false;  // queries, keys and values; width is then a multiple of 16

  std::vector<nn::Layout> layouts(int seq_parts) const {
    return {{.patches = {tokens[0], patches}, .seq_parts = seq_parts, .pinned_to_first_patch = true},
            {.patches = {tokens[1], patches}, .seq_parts = seq_parts}};
  }
  at::Tensor input(int stream) const {
    return noise({tokens[static_cast<size_t>(stream)], batch, channels}, 10 + static_cast<uint64_t>(stream));
  }
};

// One rank's toy model. x: this rank's tokens per stream.
class ToyModel {
 public:
  ToyModel(const Toy& toy, const nn::Seams& seams) : toy_(toy), seams_(seams) {
    norm_.weight = noise({toy.width}, 99);
    const Range mine = Partition{toy.heads, seams.tensor_size}[seams.tensor_rank];
    for (int b = 0; b < toy.blocks; ++b) {
      const auto seed = 100 + static_cast<uint64_t>(b) * 10;
      const auto qkv = noise({3, toy.heads, toy.width, toy.channels}, seed);
      qkv_.push_back(qkv.narrow(1, mine.begin, mine.size).reshape({-1, toy.channels}));
      const auto out = noise({toy.channels, toy.heads, toy.width}, seed + 1);
      out_.push_back(out.narrow(1, mine.begin, mine.size).reshape({toy.channels, -1}));
      const bool all = !(toy.last_asks_image_only && b + 1 == toy.blocks);
      nn::AttentionLayer layer{
          b, "toy", {0, 1}, all ? std::vector<int>{0, 1} : std::vector<int>{1}, {mine.size, toy.width}};
      layer.is_e4m3 = toy.is_e4m3;
      layer.model_type = at::kDouble;
      attend_.emplace_back(layer, seams);
    }
  }

  void run(const nn::CallContext& f, std::vector<at::Tensor>& x) const {
    std::vector<nn::Rope> ropes;
    for (int s = 0; s < 2; ++s) ropes.push_back(rope(f, s));
    for (size_t b = 0; b < attend_.size(); ++b) {
      const bool image_only = toy_.last_asks_image_only && b + 1 == attend_.size();
      std::vector<nn::Projected> projected;
      for (size_t s = 0; s < 2; ++s) {
        const auto fused = at::linear(x[s], qkv_[b]);
        projected.push_back(split(fused, ropes[s]));
        if (image_only && s == 0) projected.back().q = at::Tensor();
      }
      auto out = at::linear(attend_[b](f, projected), out_[b]);
      if (seams_.features) seams_.features->sum(out);
      const int64_t text = image_only ? 0 : x[0].size(0);
      if (!image_only) x[0] = x[0] + 0.3 * out.narrow(0, 0, text);
      x[1] = x[1] + 0.3 * out.narrow(0, text, out.size(0) - text);
    }
  }

 private:
  nn::Projected split(const at::Tensor& fused, const nn::Rope& rope) const {
    const auto t = fused.view({fused.size(0), fused.size(1), 3, fused.size(2) / 3 / toy_.width, toy_.width});
    return {t.select(2, 0), t.select(2, 1), t.select(2, 2), &norm_, &norm_, &rope};
  }
  nn::Rope rope(const nn::CallContext& f, int stream) const {
    at::Tensor at = at::empty({0, 1}, at::TensorOptions(at::kLong));
    std::vector<int64_t> all;
    for (const Range& r : f.streams[static_cast<size_t>(stream)].held(f.seq_rank, f.patch)) {
      for (int64_t i = r.begin; i < r.end(); ++i) all.push_back(i);
    }
    at = at::empty({static_cast<int64_t>(all.size()), 1}, at::TensorOptions(at::kLong));
    std::copy(all.begin(), all.end(), at.data_ptr<int64_t>());
    const int64_t axes[] = {toy_.width};
    return nn::rope_of(at, axes, 100, at::TensorOptions(at::kDouble));
  }

  const Toy& toy_;
  nn::Seams seams_;
  nn::HeadNorm norm_;
  std::vector<at::Tensor> qkv_, out_;
  std::vector<nn::Attention> attend_;
};

// All steps on one rank; its image tokens go to their places in `whole`. Text starts afresh each step.
inline void run_toy(const Toy& toy, const nn::Seams& seams, int seq_parts, int seq_rank, at::Tensor& whole) {
  const ToyModel model(toy, seams);
  nn::CallContext f{.patch = std::nullopt, .streams = toy.layouts(seq_parts), .seq_rank = seq_rank};
  const auto text = cut(toy.input(0), f.streams[0].held(seq_rank, std::nullopt));
  auto image = cut(toy.input(1), f.streams[1].held(seq_rank, std::nullopt));
  for (int step = 0; step < toy.steps; ++step) {
    const bool is_whole = toy.patches == 1 || step < toy.warmup;
    int64_t row = 0;
    for (int p = 0; p < (is_whole ? 1 : toy.patches); ++p) {
      if (!is_whole) f.patch = p;
      const int64_t n = f.streams[1].count(seq_rank, f.patch);
      std::vector<at::Tensor> x{text.narrow(0, 0, f.streams[0].count(seq_rank, f.patch)),
                                image.narrow(0, row, n)};
      model.run(f, x);
      image.narrow(0, row, n).copy_(x[1]);
      row += n;
    }
    f.patch.reset();
  }
  put_back(whole, image, f.streams[1].held(seq_rank, std::nullopt));
}

}  // namespace atelier::parallel::testing
