// A graph backend for tests on the CPU: runs the recorded piece again at each replay, and notes where a
// device's graph, which knows only addresses and numbers, would have done something else.
#pragma once
// libtorch was built with NDEBUG, and this header's class has another layout without.
#pragma push_macro("NDEBUG")
#define NDEBUG 1
#include <ATen/record_function.h>
#pragma pop_macro("NDEBUG")

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "pipeline/graph_cache.h"

namespace atelier::pipeline {

class FakeGraphs : public GraphBackend {
 public:
  FakeGraphs() { install_allocator(); }

  std::unique_ptr<Graph> record(int, const std::function<void()>& body) override {
    auto tape = std::make_unique<Tape>();
    ++recordings;
    std::map<c10::StorageImpl*, SavedStorage> saved;
    if (allocations_left >= 0) saved_ = &saved;
    recording_ = recordings;
    try {
      tape->calls = observe(body);
    } catch (...) {
      recording_ = 0, saved_ = nullptr, allocations_left = -1;
      for (const auto& [storage, s] : saved)
        std::memcpy(storage->mutable_data(), s.bytes.data(), s.bytes.size());
      throw;
    }
    recording_ = 0;
    tape->most = blocks_->most();
    return tape;
  }

  void replay(Graph& graph, const std::function<void()>& body) override {
    auto& tape = static_cast<Tape&>(graph);
    ++replays;
    if (tape.is_fresh) {
      tape.is_fresh = false;  // unlike a device's, this recording did the work
      return;
    }
    const auto calls = observe(body);
    for (size_t i = 0; i < std::min(calls.size(), tape.calls.size()); ++i)
      compare(tape.calls[i], calls[i], i);
    if (calls.size() != tape.calls.size())
      note(str("the piece has ", calls.size(), " operations, recorded ", tape.calls.size()));
  }

  int64_t generation() const override { return now; }

  // What went wrong first; empty: nothing.
  std::string fault;
  int64_t now = 0;
  int recordings = 0, replays = 0;
  // Allocations until the memory of the next recording is used up; -1: it suffices.
  int allocations_left = -1;
  // The number of the recording under way; 0: none.
  int recording() const { return recording_; }

 private:
  // One operation as a device's graph would keep it.
  struct Operation {
    std::string name;
    std::vector<const void*> addresses;  // of tensors that the piece did not allocate
    std::vector<double> numbers;
  };
  struct Tape : Graph {
    std::vector<Operation> calls;
    bool is_fresh = true;
    int64_t most = 0;  // allocated at one time
    int64_t bytes() const override { return most; }
  };
  struct SavedStorage {
    c10::Storage owner;
    std::vector<char> bytes;
  };

  // Memory allocated by a piece, as long as it lives. Another thread may be the last to let go of some.
  class LiveBlocks {
   public:
    void add(const void* p, size_t n) {
      const std::scoped_lock lock(mutex_);
      sizes_[static_cast<const char*>(p)] = n;
      now_ += static_cast<int64_t>(n);
      most_ = std::max(most_, now_);
    }
    void remove(const void* p) {
      const std::scoped_lock lock(mutex_);
      if (const auto node = sizes_.extract(static_cast<const char*>(p)))
        now_ -= static_cast<int64_t>(node.mapped());
    }
    int64_t most() const {
      const std::scoped_lock lock(mutex_);
      return most_;
    }
    bool hold(const void* p) const {
      const std::scoped_lock lock(mutex_);
      auto after = sizes_.upper_bound(static_cast<const char*>(p));
      if (after == sizes_.begin()) return false;
      --after;
      return static_cast<const char*>(p) < after->first + after->second;
    }
    size_t count() const {
      const std::scoped_lock lock(mutex_);
      return sizes_.size();
    }

   private:
    mutable std::mutex mutex_;
    std::map<const char*, size_t> sizes_;
    int64_t now_ = 0, most_ = 0;  // bytes
  };

  // Tells the blocks of the piece that runs on this thread.
  class TrackingAllocator : public c10::Allocator {
   public:
    explicit TrackingAllocator(c10::Allocator* inner) : inner_(inner) {}
    c10::DataPtr allocate(size_t n) override {
      FakeGraphs* fake = running();
      if (fake && fake->recording_ && fake->allocations_left >= 0) {
        TORCH_CHECK_WITH(OutOfMemoryError, fake->allocations_left > 0, "the recording's memory is used up");
        --fake->allocations_left;
      }
      if (!fake || n == 0) return inner_->allocate(n);
      void* p = inner_->raw_allocate(n);
      fake->blocks_->add(p, n);
      {
        const std::scoped_lock lock(mutex_);
        tracked_[p] = fake->blocks_;
      }
      return {p, p, &release, c10::kCPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, std::size_t n) const override { std::memcpy(to, from, n); }

   private:
    static void release(void* p) {
      auto& self = tracking();
      {
        const std::scoped_lock lock(self.mutex_);
        if (const auto node = self.tracked_.extract(p)) node.mapped()->remove(p);
      }
      self.inner_->raw_deallocate(p);
    }
    c10::Allocator* inner_;
    std::mutex mutex_;
    std::map<void*, std::shared_ptr<LiveBlocks>> tracked_;
  };

  static TrackingAllocator& tracking() {
    static auto* allocator = new TrackingAllocator(c10::GetCPUAllocator());  // outlives every tensor
    return *allocator;
  }
  static void install_allocator() { c10::SetCPUAllocator(&tracking(), 1); }
  static FakeGraphs*& running() {
    thread_local FakeGraphs* fake = nullptr;
    return fake;
  }

  // Runs the piece and lists its operations. What it allocated must be gone at its end.
  std::vector<Operation> observe(const std::function<void()>& body) {
    struct Running {
      explicit Running(FakeGraphs* fake)
          : handle(at::addThreadLocalCallback(at::RecordFunctionCallback(&FakeGraphs::on_call)
                                                  .needsInputs(true)
                                                  .scopes({at::RecordScope::FUNCTION}))) {
        running() = fake;
      }
      ~Running() {
        running() = nullptr;
        at::removeCallback(handle);
      }
      at::CallbackHandle handle;
    };
    calls_.clear();
    blocks_ = std::make_shared<LiveBlocks>();
    {
      const Running until_here(this);
      body();
    }
    // A peer may hold what it was sent a moment longer.
    for (int tries = 0; blocks_->count() > 0 && fault.empty() && tries < 2000; ++tries)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (const auto n = blocks_->count())
      note(str(n, " tensors that the piece allocated are still used when it has ended"));
    return std::move(calls_);
  }

  static std::unique_ptr<at::ObserverContext> on_call(const at::RecordFunction& fn) {
    if (FakeGraphs* fake = running()) {
      auto& call = fake->calls_.emplace_back(Operation{fn.name(), {}, {}});
      for (const auto& input : fn.inputs()) fake->add(call, input);
    }
    return nullptr;
  }
  void add(Operation& call, const c10::IValue& input) {
    if (input.isTensor()) {
      const auto& t = input.toTensor();
      if (!t.defined() || t.numel() == 0 || t.is_meta() || blocks_->hold(t.const_data_ptr())) return;
      call.addresses.push_back(t.const_data_ptr());
      if (saved_) save(t);
    } else if (input.isTensorList()) {
      for (const at::Tensor& t : input.toTensorList()) add(call, t);
    } else if (input.isIntList()) {
      for (const int64_t n : input.toIntList()) call.numbers.push_back(static_cast<double>(n));
    } else if (input.isInt()) {
      call.numbers.push_back(static_cast<double>(input.toInt()));
    } else if (input.isDouble()) {
      call.numbers.push_back(input.toDouble());
    }
  }
  // A recording that fails has done nothing, on a device.
  void save(const at::Tensor& t) {
    const auto& storage = t.storage();
    if (saved_->count(storage.unsafeGetStorageImpl())) return;
    const auto* begin = static_cast<const char*>(storage.data());
    saved_->emplace(storage.unsafeGetStorageImpl(), SavedStorage{storage, {begin, begin + storage.nbytes()}});
  }

  void compare(const Operation& then, const Operation& now, size_t i) {
    const auto where = str("operation ", i, " (", now.name, ")");
    if (then.name != now.name) {
      note(str(where, " was ", then.name, " when it was recorded"));
    } else if (then.addresses != now.addresses) {
      note(str(where, " uses other memory than when it was recorded"));
    } else if (then.numbers != now.numbers) {
      note(str(where, " has other numbers than when it was recorded"));
    }
  }
  void note(const std::string& what) {
    if (fault.empty()) fault = what;
  }

  int recording_ = 0;
  std::map<c10::StorageImpl*, SavedStorage>* saved_ = nullptr;
  std::shared_ptr<LiveBlocks> blocks_ = std::make_shared<LiveBlocks>();
  std::vector<Operation> calls_;
};

}  // namespace atelier::pipeline
