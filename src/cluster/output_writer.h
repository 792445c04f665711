// Stores the artifacts of a batch while the next batch is generated.
#pragma once
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "cluster/sink.h"

namespace atelier::cluster {

struct WriteTask {
  int64_t run = 0;
  std::vector<request::Request> requests;
  std::vector<media::Artifact> artifacts;
  double seconds = 0;  // that each took to generate
};

class OutputWriter {
 public:
  // Called on the writer's thread.
  struct Events {
    std::function<SinkResult(const request::Request&, const media::Artifact&)> put;
    std::function<void(int64_t run, int request, const SinkResult&)> on_stored;
    std::function<void(int64_t run, std::exception_ptr)> on_end;  // null: all of it is stored
  };
  explicit OutputWriter(Events events);
  ~OutputWriter();  // drops what is not begun

  // Waits while an earlier batch still waits to be begun.
  void submit(WriteTask task);
  // Waits until everything is stored.
  void finish();

 private:
  void work();
  void write(const WriteTask& task);

  const Events events_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<WriteTask> next_;
  bool is_busy_ = false, is_over_ = false;
  std::thread thread_;
};

}  // namespace atelier::cluster
