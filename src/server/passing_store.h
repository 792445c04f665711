// A store that passes everything on: tests change what they need.
#pragma once
#include <atomic>
#include <functional>

#include "base/error.h"
#include "server/job_store.h"

namespace atelier::server {

class PassingStore : public JobStore {
 public:
  explicit PassingStore(JobStore& inner) : inner_(inner) {}
  void write(std::span<const JobRecord> records) override { inner_.write(records); }
  std::optional<JobRecord> find(const std::string& id) override { return inner_.find(id); }
  std::optional<JobRecord> find_idempotent(const std::string& owner, const std::string& key) override {
    return inner_.find_idempotent(owner, key);
  }
  std::vector<JobRecord> list(const JobQuery& query) override { return inner_.list(query); }
  std::vector<JobRecord> take_open() override { return inner_.take_open(); }
  void put_picture(const std::string& job, const std::string& name, std::string_view bytes) override {
    inner_.put_picture(job, name, bytes);
  }
  std::optional<std::string> picture(const std::string& job, const std::string& name) override {
    return inner_.picture(job, name);
  }
  void forget_finished(int keep) override { inner_.forget_finished(keep); }
  void remove(const std::string& id) override { inner_.remove(id); }
  std::string kept(const std::string& name, const std::string& otherwise) override {
    return inner_.kept(name, otherwise);
  }

 private:
  JobStore& inner_;
};

// Passes everything on, unless it is full.
class FullStore : public PassingStore {
 public:
  std::function<void()> before_writing = {};
  std::atomic<bool> takes_pictures = false;  // also while it is full
  std::atomic<int> bad_removals = 0;         // so many fail
  FullStore(JobStore& inner, const std::atomic<bool>& is_full) : PassingStore(inner), is_full_(is_full) {}
  void write(std::span<const JobRecord> records) override {
    if (before_writing) before_writing();
    if (is_full_) throw Error(Kind::kCapacity, "the disk is full");
    PassingStore::write(records);
  }
  void put_picture(const std::string& job, const std::string& name, std::string_view bytes) override {
    if (is_full_ && !takes_pictures) throw Error(Kind::kCapacity, "the disk is full");
    PassingStore::put_picture(job, name, bytes);
  }
  void remove(const std::string& id) override {
    if (bad_removals.fetch_sub(1) > 0) throw Error(Kind::kUsage, "the disk does not answer");
    PassingStore::remove(id);
  }

 private:
  const std::atomic<bool>& is_full_;
};

}  // namespace atelier::server
