#include "cluster/output_writer.h"

#include <utility>

#include "report/clock.h"

namespace atelier::cluster {

OutputWriter::OutputWriter(Events events) : events_(std::move(events)), thread_([this] { work(); }) {}

OutputWriter::~OutputWriter() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void OutputWriter::submit(WriteTask task) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !next_; });
  next_ = std::move(task);
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
    write(task);
    lock.lock();
    is_busy_ = false;
    changed_.notify_all();
  }
}

void OutputWriter::write(const WriteTask& task) {
  try {
    for (size_t i = 0; i < task.artifacts.size(); ++i) {
      const report::Stopwatch watch;
      SinkResult stored = events_.put(task.requests[i], task.artifacts[i]);
      stored.store_seconds = watch.seconds();
      stored.record.seconds = task.seconds + stored.store_seconds;
      events_.on_stored(task.run, static_cast<int>(i), stored);
    }
  } catch (...) {
    events_.on_end(task.run, std::current_exception());
    return;
  }
  events_.on_end(task.run, nullptr);
}

}  // namespace atelier::cluster
