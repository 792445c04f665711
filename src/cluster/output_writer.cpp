#include "cluster/output_writer.h"

#include <utility>

#include "report/clock.h"

namespace atelier::cluster {

Printer::Printer(PrinterEvents events) : events_(std::move(events)), thread_([this] { work(); }) {}

Printer::~Printer() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Printer::submit(jobs::Batch batch, std::vector<media::Picture> pictures, double seconds) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !next_; });
  next_ = Sheet{std::move(batch), std::move(pictures), seconds};
  changed_.notify_all();
}

void Printer::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !next_ && !is_busy_; });
}

void Printer::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return next_ || is_over_; });
    if (is_over_) return;
    const Sheet sheet = std::move(*next_);
    next_.reset();
    is_busy_ = true;
    changed_.notify_all();
    lock.unlock();
    print(sheet);
    lock.lock();
    is_busy_ = false;
    changed_.notify_all();
  }
}

void Printer::print(const Sheet& sheet) {
  try {
    for (size_t i = 0; i < sheet.pictures.size(); ++i) {
      const report::Stopwatch watch;
      const int64_t bytes = events_.write(sheet.batch.items[i], sheet.pictures[i]);
      events_.on_picture(sheet.batch.id, {sheet.batch.items[i], bytes, sheet.seconds + watch.seconds()});
    }
  } catch (...) {
    events_.on_end(sheet.batch, std::current_exception());
    return;
  }
  events_.on_end(sheet.batch, nullptr);
}

}  // namespace atelier::cluster
