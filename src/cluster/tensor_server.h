// A loaded model that a program of the same host calls over a socket: evaluations of the denoiser, decodes,
// whole pictures. What ComfyUI's nodes talk to.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "cluster/packets.h"
#include "cluster/worker_pool.h"

namespace atelier::cluster {

// Messages are JSON objects, tensors lie in memory files whose descriptors come with the messages.
//   to the server, each with an "id" that its answers bear
//     {do: "load"}                          workers are started now, not at the first call
//     {do: "predict" or "decode", ...}      a TensorCall without its memory, and one descriptor
//     {do: "draw", requests: [{...}]}       rows as those of a prompt file
//     {do: "release"}                       workers end, memory is free; the next call starts others
//     {do: "cancel"}                        the work of this id
//   to the client
//     {is: "hello", ...}                    what is served, before anything else
//     {is: "step", step, steps}, {is: "note", note}
//     {is: "artifact", index, bytes, format} with a descriptor of a file's bytes in memory
//     {is: "done", shape}, {is: "failed", kind, reason}, {is: "cancelled"}: the last of an id
// The end of the connection is the end of the server. A worker that dies is replaced, and its
// work tried again.
class TensorServer {
 public:
  // The rows of one "draw" as requests that a pool may be given; throws Error(kUsage) for what
  // cannot be drawn.
  using MakeRequests = std::function<std::vector<request::Request>(const Json& rows)>;

  TensorServer(Job job, Descriptor socket, MakeRequests make_requests);
  ~TensorServer();
  // Until the client is gone, or a stop request.
  void run(const Json& hello, const std::stop_token& stop);

 private:
  struct OpenWork {
    int64_t id = 0;
    Descriptor memory;   // of a call
    int unfinished = 1;  // batches of the pool
    bool has_failed = false, is_cancelled = false;
    std::vector<int64_t> shape = {};  // of the result
  };
  void listen();
  void end();
  void take(Packet packet);
  void call(int64_t id, Packet packet);
  void draw(int64_t id, const Json& rows);
  void cancel(int64_t id);
  void load(int64_t id);
  void release(int64_t id);
  WorkerPool& pool();
  void poll();
  void fail_all(std::optional<Kind> kind, const std::string& reason);
  void fail(OpenWork& work, std::optional<Kind> kind, const std::string& reason);
  void send_failure(int64_t id, std::optional<Kind> kind, const std::string& reason);
  OpenWork* find(int64_t batch);
  void on(const GroupReady&);
  void on(const StepDone& e);
  void on(const PreviewReady&) {}
  void on(const RequestNote& e);
  void on(const BatchGenerated&) {}
  void on(const ArtifactStored& e);
  void on(const CallAnswered& e);
  void on(const CallFailed& e);
  void on(const RequestFailed& e);
  void on(const BatchDone& e);
  void on(const GroupRestarted& e);
  void on(const GroupLost& e);

  const Job job_;
  const PacketSocket socket_;
  const MakeRequests make_requests_;
  std::unique_ptr<WorkerPool> pool_;  // null: nothing is loaded
  bool is_ready_ = false;
  std::vector<int64_t> loads_;                             // ids that wait for it
  std::map<int64_t, std::shared_ptr<OpenWork>> by_batch_;  // of the pool

  std::mutex mutex_;  // of what the listening thread leaves
  std::condition_variable changed_;
  std::deque<Packet> arrived_;
  WorkerPool* awake_ = nullptr;
  bool is_over_ = false;
  std::thread listener_;
};

}  // namespace atelier::cluster
