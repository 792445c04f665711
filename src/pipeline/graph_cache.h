// Pieces of a step as device graphs: recorded at the second call of a key, replayed from then on. Without a
// backend (on the CPU, and where recording is off) the piece simply runs.
#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

namespace atelier::pipeline {

enum class GraphMode : uint8_t { kOff, kOn };

// One recorded piece.
class Graph {
 public:
  virtual ~Graph() = default;
  // Of the memory that it shares with the other recordings on its buffers, which is given back with the
  // last of them.
  virtual int64_t bytes() const = 0;
};

// Where pieces are recorded. Recordings on the same buffers share the memory they allocate: they run
// one after another.
class GraphBackend {
 public:
  virtual ~GraphBackend() = default;
  // What body launches, without running it. What body throws comes out when the recording has been ended:
  // c10::OutOfMemoryError where memory does not suffice.
  virtual std::unique_ptr<Graph> record(int buffers, const std::function<void()>& body) = 0;
  // body: what was recorded, for a backend that cannot do it without.
  virtual void replay(Graph& graph, const std::function<void()>& body) = 0;
  // What was recorded in an earlier one is recorded anew: its pieces would be computed otherwise today.
  virtual int64_t generation() const { return 0; }
};

// CUDA graphs; null in a build without CUDA.
std::unique_ptr<GraphBackend> cuda_graphs();

// Which piece: the buffers it works on (BufferCache), what it computes there. part: of a chunk that is
// cut in parts.
struct GraphKey {
  int buffers = 0, chunk = 0, branch = 0, patch = -1, expert = 0, part = 0;
  auto operator<=>(const GraphKey&) const = default;
};

class GraphCache {
 public:
  explicit GraphCache(std::unique_ptr<GraphBackend> backend) : backend_(std::move(backend)) {}
  // `body` must do the same work on the same memory at each call of a key, without waiting for the device;
  // what it leaves for others must lie in memory that it did not allocate. Runs it eagerly where memory does
  // not suffice to record it. What else it throws while it is recorded comes out. In both cases the key is
  // not recorded again before forget().
  void run(const GraphKey& key, const std::function<void()>& body);
  void forget(int buffers);          // their graphs, before the buffers go
  int64_t bytes(int buffers) const;  // of memory that their graphs hold
  bool is_on() const { return backend_ != nullptr; }
  int captured() const;

 private:
  struct KeyedGraph {
    bool is_warm = false, is_broken = false;
    int64_t generation = 0;
    std::unique_ptr<Graph> graph;
  };
  std::unique_ptr<GraphBackend> backend_;
  std::map<GraphKey, KeyedGraph> entries_;
};

}  // namespace atelier::pipeline
