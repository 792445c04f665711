#include "cluster/output_writer.h"

#include <utility>

#include "report/clock.h"

namespace atelier::cluster {

OutputWriter::OutputWriter(OutputWriterEvents events)
    : events_(std::move(events)), thread_([this] { work(); }) {}

OutputWriter::~OutputWriter() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void OutputWriter::submit(jobs::Batch batch, std::vector<media::Artifact> artifacts, double seconds) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !next_; });
  next_ = WriteTask{std::move(batch), std::move(artifacts), seconds};
  changed_.notify_all();
}

void OutputWriter::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !next_ && !is_busy_; });
}

void OutputWriter::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return next_ || is_over_; });
    if (is_over_) return;
    const WriteTask task = std::move(*next_);
    next_.reset();
    is_busy_ = true;
    changed_.notify_all();
    lock.unlock();
    print(task);
    lock.lock();
    is_busy_ = false;
    changed_.notify_all();
  }
}

void OutputWriter::print(const WriteTask& task) {
  try {
    for (size_t i = 0; i < task.artifacts.size(); ++i) {
      const report::Stopwatch callbacks;
      auto stored = events_.write(task.batch.requests[i], task.artifacts[i]);
      stored.seconds = task.seconds + callbacks.seconds();
      events_.on_picture(task.batch.id, {task.batch.requests[i], std::move(stored)});
    }
  } catch (...) {
    events_.on_end(task.batch, std::current_exception());
    return;
  }
  events_.on_end(task.batch, nullptr);
}

}  // namespace atelier::cluster
