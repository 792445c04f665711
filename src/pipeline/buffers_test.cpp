// Which buffers are kept, and memory that stays where it is.
#include "pipeline/buffers.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "nn/testing.h"
#include "pipeline/fake_graphs.h"

namespace atelier::pipeline {
namespace {

using nn::random;

struct Cache {
  parallel::ParallelContext parallel{{}, nullptr, nn::SdpaBackend::kMath};
  GraphCache graphs{std::make_unique<FakeGraphs>()};
  BufferCache cache;
  int made = 0;

  explicit Cache(int64_t budget) : cache(budget, graphs, parallel) {}
  // Buffers of one tensor with this many bytes; as many attempts as told run out of memory.
  RequestBuffers& get(int64_t key, int64_t bytes, int failures = 0) {
    return cache.get({key}, [&] {
      TORCH_CHECK_WITH(OutOfMemoryError, failures-- <= 0, "no memory");
      ++made;
      RequestBuffers b;
      b.latents = at::empty({bytes}, at::TensorOptions(at::kByte));
      return b;
    });
  }
};

TEST(BufferCache, KeepsWhatWasUsedLastWithinItsBudget) {
  Cache c(100);
  c.get(1, 40), c.get(2, 40);
  EXPECT_EQ(c.cache.size(), 2u);
  c.get(1, 40);
  EXPECT_EQ(c.made, 2);
  c.get(3, 40);
  EXPECT_EQ(c.cache.size(), 2u);
  c.get(1, 40);
  EXPECT_EQ(c.made, 3) << "2 was older than 1";
  c.get(2, 40);
  EXPECT_EQ(c.made, 4);
}

TEST(BufferCache, TheOneInUseStaysHoweverLarge) {
  Cache c(100);
  c.get(1, 40);
  c.get(2, 1000);
  EXPECT_EQ(c.cache.size(), 1u);
  c.get(2, 1000);
  EXPECT_EQ(c.made, 2);
}

TEST(BufferCache, BuffersThatGrewAreTrimmed) {
  Cache c(100);
  c.get(1, 40);
  auto& second = c.get(2, 40);
  second.input_divisors = at::empty({40}, at::TensorOptions(at::kByte));
  EXPECT_EQ(c.cache.size(), 2u);
  c.cache.trim();
  EXPECT_EQ(c.cache.size(), 1u);
  c.get(2, 40);
  EXPECT_EQ(c.made, 2);
}

TEST(BufferCache, WhatGraphsHoldCountsAndGoesWithTheirBuffers) {
  Cache c(100);
  // A piece on these buffers that needs as many bytes for a moment; run twice, so recorded.
  const auto record = [&](int id, int64_t bytes, int chunk = 0) {
    for (int i = 0; i < 2; ++i) {
      c.graphs.run({.buffers = id, .chunk = chunk},
                   [&] { at::empty({bytes}, at::TensorOptions(at::kByte)).zero_(); });
    }
  };
  const int first = c.get(1, 10).id, second = c.get(2, 10).id;
  record(first, 30), record(second, 40), record(second, 20, 1);
  EXPECT_EQ(c.graphs.bytes(first), 30);
  EXPECT_EQ(c.graphs.bytes(second), 40) << "its pieces share one memory";
  c.cache.trim();
  EXPECT_EQ(c.cache.size(), 2u) << "90 of 100 bytes";
  record(second, 60, 2);
  EXPECT_EQ(c.cache.size(), 2u);
  c.cache.trim();
  EXPECT_EQ(c.cache.size(), 1u) << "110 of 100 bytes";
  EXPECT_EQ(c.graphs.bytes(first), 0);
  EXPECT_EQ(c.graphs.captured(), 3) << "those of the buffers that stay";
  record(second, 1000, 3);
  c.cache.trim();
  EXPECT_EQ(c.cache.size(), 1u) << "what is in use stays";
  c.cache.clear();
  EXPECT_EQ(c.graphs.captured(), 0);
}

TEST(BufferCache, WhereMemoryRunsOutTheOldestGoUntilItSuffices) {
  Cache c(1000);
  const int first = c.get(1, 1).id;
  c.get(2, 1), c.get(3, 1);
  const int fourth = c.get(4, 1, 2).id;
  EXPECT_EQ(c.cache.size(), 2u) << "3 and 4";
  EXPECT_NE(first, fourth);
  c.get(3, 1);
  EXPECT_EQ(c.made, 4);
  EXPECT_THROW(c.get(5, 1, 9), c10::OutOfMemoryError);
  EXPECT_EQ(c.cache.size(), 0u) << "everything else went first";
}

TEST(StableMemory, TakesNewValuesWhereTheyFit) {
  at::Tensor to;
  const auto first = random({3, 2}), second = random({3, 2}, at::kDouble, 2);
  EXPECT_TRUE(nn::assign_stable_(to, first));
  EXPECT_FALSE(to.is_alias_of(first)) << "the caller's tensor is never written";
  const auto* address = to.const_data_ptr();
  EXPECT_FALSE(nn::assign_stable_(to, second));
  EXPECT_EQ(to.const_data_ptr(), address);
  EXPECT_TRUE(at::equal(to, second));
  EXPECT_TRUE(nn::assign_stable_(to, random({4, 2})));
  EXPECT_TRUE(nn::assign_stable_(to, {}));
  EXPECT_FALSE(nn::assign_stable_(to, {}));
}

TEST(StableMemory, HasRoomForMoreSteps) {
  at::Tensor to;
  EXPECT_TRUE(nn::assign_by_step_(to, random({4, 2})));
  const auto five = random({5, 2});
  EXPECT_FALSE(nn::assign_by_step_(to, five));
  EXPECT_TRUE(at::equal(to.narrow(0, 0, 5), five));
  EXPECT_TRUE(nn::assign_by_step_(to, random({9, 2})));
  EXPECT_FALSE(nn::assign_by_step_(to, random({16, 2})));
  EXPECT_TRUE(nn::assign_by_step_(to, random({16, 3}))) << "another width";
}

}  // namespace
}  // namespace atelier::pipeline
