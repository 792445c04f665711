// CUDA graphs over pieces of a step: recorded at the second call of a key, replayed from then on. On the CPU,
// and where recording is off, the piece simply runs.
#pragma once
#include <functional>
#include <memory>
#include <string>

namespace atelier::pipeline {

enum class GraphMode { kOff, kOn };

class GraphCache {
 public:
  explicit GraphCache(GraphMode mode);
  ~GraphCache();
  // `body` must do the same work on the same memory at each call of a key, without waiting for the device;
  // what it leaves for others must lie in memory that it did not allocate, because all keys share theirs.
  // Runs it eagerly where memory does not suffice to record it. What else it throws while it is recorded
  // comes out. In both cases the key is not recorded again before clear().
  void run(const std::string& key, const std::function<void()>& body);
  void clear();
  bool is_on() const;
  int captured() const;

 private:
  struct Cache;
  std::unique_ptr<Cache> cache_;
};

}  // namespace atelier::pipeline
