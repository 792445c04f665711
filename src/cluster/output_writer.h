// Encodes and writes the pictures of a batch while the next batch is drawn.
#pragma once
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "cluster/job.h"

namespace atelier::cluster {

// What happens to a batch, called on the printer's thread.
struct OutputWriterEvents {
  std::function<jobs::Stored(const request::Request&, const media::Artifact&)> write;  // seconds: 0
  std::function<void(int64_t batch, const Finished&)> on_picture;
  std::function<void(const jobs::Batch&, std::exception_ptr)> on_end;  // null: all of it is written
};

class OutputWriter {
 public:
  explicit OutputWriter(OutputWriterEvents events);
  ~OutputWriter();  // drops what is not begun

  // Waits while an earlier batch still waits to be begun. seconds: that each picture took to draw.
  void submit(jobs::Batch batch, std::vector<media::Artifact> artifacts, double seconds);
  // Waits until everything is written.
  void finish();

 private:
  struct WriteTask {
    jobs::Batch batch;
    std::vector<media::Artifact> artifacts;
    double seconds = 0;
  };
  void work();
  void print(const WriteTask& task);

  OutputWriterEvents events_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<WriteTask> next_;
  bool is_busy_ = false, is_over_ = false;
  std::thread thread_;
};

}  // namespace atelier::cluster
