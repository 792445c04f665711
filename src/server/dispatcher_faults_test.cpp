// The queue while its store fails, or is slow, or its engine takes nothing.
#include <gtest/gtest.h>

#include <stdexcept>

#include "base/error.h"
#include "server/desk_for_test.h"
#include "server/passing_store.h"

namespace atelier::server {
namespace {

using namespace std::chrono_literals;

TEST(Dispatcher_AFullDisk, LosesNothingThatWasAccepted) {
  Desk desk;
  desk.dispatcher.reset();
  std::atomic<bool> is_full = false;
  FullStore store(*desk.store, is_full);
  desk.dispatcher = std::make_unique<Dispatcher>(DispatcherOptions{}, store, 100, desk.metrics, [] {
    return std::make_unique<StubEngine>(StubEngine::Behaviour{.step_time = 30ms});
  });
  const Waiter accepted, refused;
  const auto id = desk.dispatcher->submit(desk.record("accepted", 1, 5), accepted.listener());
  wait_until([&] { return *accepted.steps > 0; });
  is_full = true;
  EXPECT_EQ(accepted.wait().record.state, JobState::kDone);
  desk.dispatcher->submit(desk.record("refused"), refused.listener());
  EXPECT_EQ(refused.wait().record.error_status, 503);
  // what is drawn is there, from memory, and open for whoever comes after this process
  EXPECT_EQ(desk.dispatcher->picture(*desk.dispatcher->find(id), 0), "accepted 7");
  EXPECT_FALSE(is_final(desk.store->find(id)->state));
  is_full = false;
  wait_until([&] { return desk.store->find(id)->state == JobState::kDone; });
  EXPECT_EQ(desk.store->picture(id, "0.png"), "accepted 7");
  desk.dispatcher.reset();
}

TEST(Dispatcher_WhoWaitsForPictures, DoesNotWaitForTheDisk) {
  Desk desk;
  desk.dispatcher.reset();
  std::atomic<bool> is_full = false;
  std::promise<void> opened;
  const auto gate = opened.get_future().share();
  FullStore store(*desk.store, is_full);
  store.before_writing = [gate] { gate.wait(); };
  desk.dispatcher = std::make_unique<Dispatcher>(DispatcherOptions{}, store, 100, desk.metrics, [] {
    return std::make_unique<StubEngine>(StubEngine::Behaviour{});
  });
  const Waiter awaited, kept, lost;
  const auto id = desk.dispatcher->submit(desk.record("awaited"), awaited.listener(), Acceptance::kAtOnce);
  desk.dispatcher->submit(desk.record("kept"), kept.listener());
  EXPECT_EQ(awaited.wait().record.state, JobState::kDone);
  EXPECT_EQ(kept.steps->load(), 0);
  opened.set_value();
  EXPECT_EQ(kept.wait().record.state, JobState::kDone);
  wait_until([&] {
    const auto stored = desk.store->find(id);
    return stored && stored->state == JobState::kDone;
  });
  is_full = true;  // it is drawn all the same, and not kept
  desk.dispatcher->submit(desk.record("lost"), lost.listener(), Acceptance::kAtOnce);
  EXPECT_EQ(lost.wait().record.state, JobState::kDone);
  desk.dispatcher.reset();
}

// A dispatcher over a store of its own.
std::unique_ptr<Dispatcher> dispatcher_over(JobStore& store, Desk& desk, StubEngine::Behaviour behaviour = {},
                                            DispatcherOptions options = {}) {
  desk.dispatcher.reset();
  return std::make_unique<Dispatcher>(options, store, 100, desk.metrics, [&desk, behaviour] {
    return std::make_unique<StubEngine>(behaviour, &desk.seen);
  });
}

TEST(Dispatcher_AStoreThatFailsToForget, EndsNothingAndIsAskedAgain) {
  Desk desk;
  std::atomic<bool> is_full = false;
  FullStore store(*desk.store, is_full);
  const auto dispatcher = dispatcher_over(store, desk);
  const Waiter done, other;
  std::promise<void> opened;
  const auto gate = opened.get_future().share();
  store.before_writing = [gate] { gate.wait(); };  // so that it is forgotten while its record is on its way
  const auto id = dispatcher->submit(desk.record("a fox"), done.listener(), Acceptance::kAtOnce);
  done.wait();
  store.bad_removals = 1;
  dispatcher->forget(id);
  opened.set_value();
  wait_until([&] { return store.bad_removals <= 0; });
  dispatcher->submit(desk.record("another"), other.listener());
  EXPECT_EQ(other.wait().record.state, JobState::kDone);
  EXPECT_FALSE(dispatcher->find(id));
  wait_until([&] { return !desk.store->find(id); });
}

TEST(Dispatcher_WhatWasNeverAccepted, LeavesNothingInTheStore) {
  Desk desk;
  std::atomic<bool> is_full = true;
  FullStore store(*desk.store, is_full);
  store.takes_pictures = true;
  const auto dispatcher = dispatcher_over(store, desk);
  const Waiter waiter;
  const auto id = dispatcher->submit(desk.record("a fox"), waiter.listener(), Acceptance::kAtOnce);
  EXPECT_EQ(waiter.wait().record.state, JobState::kDone);
  wait_until([&] { return !dispatcher->find(id); });
  wait_until([&] { return !desk.store->picture(id, "0.png"); });
}

TEST(Dispatcher_AListenerThatFails, HoldsUpNobody) {
  Desk desk;
  const Waiter waiter;
  desk.dispatcher->listen_all([](const JobEvent&) { throw std::runtime_error("on purpose"); });
  desk.dispatcher->submit(desk.record("a fox"), waiter.listener());
  EXPECT_EQ(waiter.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_AJobThatFailed, IsDrawnNoFurther) {
  Desk desk({.groups = 2, .step_time = 20ms, .fails = "bad"}, {.batch = {.most = 1}});
  const Waiter waiter;
  auto record = desk.record("bad", 2);
  record.requests[1].prompt = "its other picture";
  record.requests[1].num_inference_steps = 1000;
  desk.dispatcher->submit(std::move(record), waiter.listener());
  EXPECT_EQ(waiter.wait().record.state, JobState::kFailed);
  wait_until([&] {
    const std::scoped_lock lock(desk.seen.mutex);
    return !desk.seen.cancelled.empty();
  });
}

TEST(Dispatcher_AnEngineThatTakesNothing, LosesNoPicture) {
  struct Refusing : StubEngine {
    using StubEngine::StubEngine;
    int64_t submit(std::vector<request::Request> requests) override {
      if (first++ == 0) throw Error(Kind::kPeer, "the workers cannot be started");
      return StubEngine::submit(std::move(requests));
    }
    int first = 0;
  };
  Desk desk;
  desk.dispatcher = std::make_unique<Dispatcher>(DispatcherOptions{}, *desk.store, 100, desk.metrics, [] {
    return std::make_unique<Refusing>(StubEngine::Behaviour{});
  });
  const Waiter waiter;
  desk.dispatcher->submit(desk.record("a fox"), waiter.listener());
  EXPECT_EQ(waiter.wait().pictures, std::vector<std::string>{"a fox 7"});
}

// A store that others share, and that is slow.
class SharedStore : public PassingStore {
 public:
  using PassingStore::PassingStore;
  std::function<void()> when_asked = {};
  std::atomic<int> asked = 0;
  bool is_shared() const override { return true; }
  std::vector<JobRecord> adopt() override {
    if (when_asked) when_asked();
    return {};
  }
  void ask_cancel(const std::string&) override {
    if (when_asked) when_asked();
    ++asked;
  }
  std::optional<JobRecord> find_idempotent(const std::string& owner, const std::string& key) override {
    if (when_asked) when_asked();
    return PassingStore::find_idempotent(owner, key);
  }
};

TEST(Dispatcher_ADatabaseThatDoesNotAnswer, HoldsUpNobodyElse) {
  Desk desk;
  SharedStore store(*desk.store);
  std::promise<void> opened;
  const auto gate = opened.get_future().share();
  std::atomic<bool> is_met = false;
  store.when_asked = [&, gate] {
    is_met = true;
    gate.wait();
  };
  const auto dispatcher = dispatcher_over(store, desk);
  wait_until([&] { return is_met.load(); });  // it looks at the others, and waits
  auto named = desk.record("named");
  named.idempotency = "key";
  std::thread waits([&] { dispatcher->submit(named); });
  std::this_thread::sleep_for(50ms);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(dispatcher->cancel("job_of_another"));
  EXPECT_FALSE(dispatcher->status().empty());
  const Waiter waiter;
  dispatcher->submit(desk.record("a fox"), waiter.listener());
  EXPECT_EQ(waiter.wait().record.state, JobState::kDone);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  opened.set_value();
  waits.join();
  wait_until([&] { return store.asked == 1; });
}

// What another front end draws ends in the store.
TEST(Dispatcher_AJobOfAnotherFrontEnd, IsToldOfOnceAndInVainToNobody) {
  Desk desk;
  auto record = desk.record("elsewhere");
  SharedStore store(*desk.store);
  const auto dispatcher = dispatcher_over(store, desk);
  desk.store->write({&record, 1});
  const Waiter waiter;
  std::atomic<int> told = 0;
  dispatcher->listen(record.id, [&](const JobEvent&) {
    ++told;
    throw std::runtime_error("on purpose");
  });
  dispatcher->listen(record.id, waiter.listener());
  record.state = JobState::kDone;
  record.pictures = {{.name = "0.png", .bytes = 5}};
  desk.store->put_picture(record.id, "0.png", "bytes");
  desk.store->write({&record, 1});
  EXPECT_EQ(waiter.wait().pictures, std::vector<std::string>{"bytes"});
  std::this_thread::sleep_for(2500ms);
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace atelier::server
