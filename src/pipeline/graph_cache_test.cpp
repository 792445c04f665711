// When pieces are recorded, replayed and run; and that the fake backend finds what a device's graph
// could not do.
#include "pipeline/graph_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "nn/testing.h"
#include "pipeline/fake_graphs.h"

namespace atelier::pipeline {
namespace {

using nn::has;

// A piece that adds one to a tensor through a temporary, and counts how often it ran.
struct Pieces {
  FakeGraphs* fake = new FakeGraphs;
  GraphCache cache{std::unique_ptr<GraphBackend>(fake)};
  at::Tensor x = at::zeros({4});
  int runs = 0;

  void run(const GraphKey& key) {
    cache.run(key, [&] {
      ++runs;
      x.add_(at::full({4}, 1.0));
    });
  }
  double value() const { return x[0].item<double>(); }
};

TEST(GraphCache, RunsThenRecordsThenReplays) {
  Pieces p;
  p.run({});
  EXPECT_EQ(p.cache.captured(), 0);
  for (int i = 0; i < 4; ++i) p.run({});
  EXPECT_EQ(p.fake->recordings, 1);
  EXPECT_EQ(p.fake->replays, 4);
  EXPECT_EQ(p.cache.captured(), 1);
  EXPECT_EQ(p.value(), 5);
  EXPECT_EQ(p.fake->fault, "");
}

TEST(GraphCache, RunsEverythingWithoutABackend) {
  GraphCache cache(nullptr);
  int runs = 0;
  for (int i = 0; i < 3; ++i) cache.run({}, [&] { ++runs; });
  EXPECT_EQ(runs, 3);
  EXPECT_FALSE(cache.is_on());
  EXPECT_EQ(cache.captured(), 0);
}

TEST(GraphCache, AlternatingKeysAreRecordedOnceEach) {
  Pieces p;
  const GraphKey keys[] = {
      {.buffers = 1}, {.buffers = 2}, {.buffers = 2, .patch = 0}, {.buffers = 2, .expert = 1}};
  for (int round = 0; round < 5; ++round) {
    for (const auto& key : keys) p.run(key);
  }
  EXPECT_EQ(p.fake->recordings, 4);
  EXPECT_EQ(p.cache.captured(), 4);
  EXPECT_EQ(p.value(), 20);
}

TEST(GraphCache, ForgetsTheGraphsOfSomeBuffers) {
  Pieces p;
  for (int i = 0; i < 3; ++i) p.run({.buffers = 1}), p.run({.buffers = 2}), p.run({.buffers = 2, .chunk = 1});
  p.cache.forget(2);
  EXPECT_EQ(p.cache.captured(), 1);
  p.run({.buffers = 2});
  EXPECT_EQ(p.cache.captured(), 1) << "a forgotten key runs before it is recorded again";
  p.run({.buffers = 2});
  EXPECT_EQ(p.cache.captured(), 2);
  EXPECT_EQ(p.fake->recordings, 4);
}

TEST(GraphCache, RecordsAnewInALaterGeneration) {
  Pieces p;
  for (int i = 0; i < 3; ++i) p.run({});
  EXPECT_EQ(p.fake->recordings, 1);
  p.fake->now = 1;
  for (int i = 0; i < 3; ++i) p.run({});
  EXPECT_EQ(p.fake->recordings, 2);
  EXPECT_EQ(p.cache.captured(), 1);
  EXPECT_EQ(p.value(), 6);
  EXPECT_EQ(p.fake->fault, "");
}

TEST(GraphCache, RunsEagerlyWhereMemoryDoesNotSufficeToRecord) {
  Pieces p;
  p.run({});
  p.fake->allocations_left = 0;
  p.run({});
  EXPECT_EQ(p.value(), 2) << "the recording that failed did nothing";
  for (int i = 0; i < 3; ++i) p.run({});
  EXPECT_EQ(p.value(), 5);
  EXPECT_EQ(p.fake->recordings, 1) << "not tried again";
  EXPECT_EQ(p.cache.captured(), 0);
  p.cache.forget(0);
  for (int i = 0; i < 3; ++i) p.run({});
  EXPECT_EQ(p.cache.captured(), 1) << "after forget() it is";
}

TEST(GraphCache, OtherErrorsComeOutAndTheKeyIsNotRecordedAgain) {
  Pieces p;
  bool fails = false;
  const auto act = [&] {
    p.cache.run({}, [&] {
      p.x.add_(1);
      if (fails && p.fake->recording()) throw Error(Kind::kPeer, "gone");
    });
  };
  act();
  fails = true;
  EXPECT_EQ(nn::error_of(Kind::kPeer, act), "gone");
  act();
  EXPECT_EQ(p.fake->recordings, 1);
  EXPECT_EQ(p.cache.captured(), 0);
}

// What the tests of the executor rely on.

TEST(FakeGraphs, FindMemoryThatLeavesThePiece) {
  Pieces p;
  at::Tensor left;
  for (int i = 0; i < 3; ++i) p.cache.run({}, [&] { left = p.x + 1; });
  EXPECT_TRUE(has(p.fake->fault, "still used when it has ended")) << p.fake->fault;
}

TEST(FakeGraphs, FindMemoryThatMoved) {
  Pieces p;
  for (int i = 0; i < 3; ++i) p.run({});
  EXPECT_EQ(p.fake->fault, "");
  p.x = p.x.clone();
  p.run({});
  EXPECT_TRUE(has(p.fake->fault, "uses other memory")) << p.fake->fault;
}

TEST(FakeGraphs, FindNumbersOfTheHost) {
  Pieces p;
  for (int i = 0; i < 3; ++i) p.cache.run({}, [&] { p.x.mul_(1.0 + i); });
  EXPECT_TRUE(has(p.fake->fault, "has other numbers")) << p.fake->fault;
}

TEST(FakeGraphs, FindWorkThatDependsOnTheHost) {
  Pieces p;
  for (int i = 0; i < 3; ++i) {
    p.cache.run({}, [&] {
      p.x.add_(1);
      if (i == 2) p.x.add_(1);
    });
  }
  EXPECT_TRUE(has(p.fake->fault, "operations, recorded")) << p.fake->fault;
}

}  // namespace
}  // namespace atelier::pipeline
