// Writes jobs to their store from a thread of its own: whatever waits becomes one transaction.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "server/job_store.h"

namespace atelier::server {

class JobWriter {
 public:
  // Called on the writer's thread; error: empty when it is on the disk.
  using Written = std::function<void(const std::string& error)>;

  JobWriter(JobStore& store, int keep_finished);
  ~JobWriter();  // writes what waits

  // Pictures go to the store before the record that names them.
  struct Picture {
    std::string job, name, bytes;
  };
  void write(JobRecord record, std::vector<Picture> pictures, Written written);
  // Once everything is written that was asked for before.
  void remove(const std::string& id, Written removed);

 private:
  struct Task {
    JobRecord record;
    std::vector<Picture> pictures;
    Written written;
    bool is_removal = false;
    std::string error = {};
  };
  void add(Task task);
  void work();
  void write(std::vector<Task>& tasks);
  void remove(std::vector<Task>& tasks);
  std::string write_records(std::span<const JobRecord> records, size_t first, size_t count);
  void forget_old();

  JobStore& store_;
  const int keep_finished_;
  int finished_ = 0;  // since old ones were last forgotten
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Task> waiting_;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace atelier::server
