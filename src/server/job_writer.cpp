#include "server/job_writer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace atelier::server {
namespace {

constexpr int kForgetEvery = 64;  // finished jobs, or an eighth of those that are kept
constexpr int kNiceness = 5;      // nobody waits for the writer as long as it keeps up

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
  add({std::move(record), std::move(pictures), std::move(written)});
}

void JobWriter::remove(const std::string& id, Written removed) {
  add({.record = {.id = id}, .pictures = {}, .written = std::move(removed), .is_removal = true});
}

void JobWriter::add(Task task) {
  {
    const std::scoped_lock lock(mutex_);
    waiting_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void JobWriter::work() {
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNiceness);  // of this thread
  for (;;) {
    std::vector<Task> tasks;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_over_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      tasks = std::exchange(waiting_, {});
    }
    write(tasks);
    remove(tasks);
    for (const auto& task : tasks) {
      if (!task.error.empty())
        log::error(str("a job cannot be ", task.is_removal ? "removed: " : "kept: ", task.error));
      if (task.written) task.written(task.error);
    }
  }
}

void JobWriter::remove(std::vector<Task>& tasks) {
  for (auto& task : tasks) {
    if (!task.is_removal) continue;
    try {
      store_.remove(task.record.id);
    } catch (const std::exception& e) {
      task.error = e.what();
    }
  }
}

// What cannot be stored fails its own job alone.
void JobWriter::write(std::vector<Task>& tasks) {
  std::vector<JobRecord> records;
  std::vector<Task*> owners;
  for (auto& task : tasks) {
    if (task.is_removal) continue;
    try {
      for (const auto& picture : task.pictures) store_.put_picture(picture.job, picture.name, picture.bytes);
      records.push_back(std::move(task.record));
      owners.push_back(&task);
    } catch (const std::exception& e) {
      task.error = e.what();
    }
  }
  if (!write_records(records, 0, records.size()).empty()) {
    for (size_t i = 0; i < records.size(); ++i) owners[i]->error = write_records(records, i, 1);
  }
  for (size_t i = 0; i < records.size(); ++i)
    finished_ += owners[i]->error.empty() && is_final(records[i].state);
  forget_old();
}

// In one transaction; why it failed, or nothing.
std::string JobWriter::write_records(std::span<const JobRecord> records, size_t first, size_t count) {
  if (count == 0) return {};
  try {
    store_.write(records.subspan(first, count));
    return {};
  } catch (const std::exception& e) {
    return e.what();
  }
}

void JobWriter::forget_old() {
  if (finished_ < std::clamp(keep_finished_ / 8, 1, kForgetEvery)) return;
  finished_ = 0;
  try {
    store_.forget_finished(keep_finished_);
  } catch (const std::exception& e) {
    log::error(str("old jobs cannot be forgotten: ", e.what()));
  }
}

}  // namespace atelier::server
