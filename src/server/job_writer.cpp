#include "server/job_writer.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace atelier::server {
namespace {

constexpr int kForgetEvery = 64;  // finished jobs

}  // namespace

JobWriter::JobWriter(JobStore& store, int keep_finished) : store_(store), keep_finished_(keep_finished) {
  thread_ = std::thread([this] { work(); });
}

JobWriter::~JobWriter() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void JobWriter::write(JobRecord record, std::vector<Picture> pictures, Written written) {
  {
    const std::scoped_lock lock(mutex_);
    waiting_.push_back({std::move(record), std::move(pictures), std::move(written)});
  }
  changed_.notify_one();
}

void JobWriter::work() {
  for (;;) {
    std::vector<Task> tasks;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_over_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      tasks = std::exchange(waiting_, {});
    }
    write(tasks);
  }
}

// A picture that cannot be stored fails its own job alone.
void JobWriter::write(std::vector<Task>& tasks) {
  std::vector<JobRecord> records;
  for (auto& task : tasks) {
    try {
      for (const auto& picture : task.pictures) store_.put_picture(picture.job, picture.name, picture.bytes);
      finished_ += is_final(task.record.state);
      records.push_back(std::move(task.record));
    } catch (const std::exception& e) {
      task.error = e.what();
    }
  }
  try {
    store_.write(records);
    if (finished_ >= kForgetEvery) {
      finished_ = 0;
      store_.forget_finished(keep_finished_);
    }
  } catch (const std::exception& e) {
    for (auto& task : tasks) {
      if (task.error.empty()) task.error = e.what();
    }
  }
  for (const auto& task : tasks) {
    if (!task.error.empty()) log::error(str("a job cannot be kept: ", task.error));
    if (task.written) task.written(task.error);
  }
}

}  // namespace atelier::server
