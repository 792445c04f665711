// Where jobs and their pictures are kept, so that neither is lost with the process.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/job_record.h"

namespace atelier::server {

// Which jobs, newest first.
struct JobQuery {
  std::optional<std::string> owner;  // whose; none: everybody's
  std::string kind;                  // empty: all
  std::string before;                // only those older than this job; empty: all
  int most = 50;
};

// Any thread; calls wait for each other. All throw Error(kCapacity) for a full disk and Error(kUsage) for
// anything else that keeps the store from working.
class JobStore {
 public:
  virtual ~JobStore() = default;
  // Of one transaction, new or changed. On the disk when it returns.
  virtual void write(std::span<const JobRecord> records) = 0;
  virtual std::optional<JobRecord> find(const std::string& id) = 0;
  virtual std::optional<JobRecord> find_idempotent(const std::string& owner, const std::string& key) = 0;
  virtual std::vector<JobRecord> list(const JobQuery& query) = 0;
  // Queued and running ones that this process is to draw, oldest first: its own, and those of front ends
  // that are gone.
  virtual std::vector<JobRecord> take_open() = 0;
  // On the disk when the next write() of its job returns.
  virtual void put_picture(const std::string& job, const std::string& name, std::string_view bytes) = 0;
  virtual std::optional<std::string> picture(const std::string& job, const std::string& name) = 0;
  // Finished jobs but for the newest ones, with their pictures and inputs.
  virtual void forget_finished(int keep) = 0;
  virtual void remove(const std::string& id) = 0;
  // What stays with the store under this name, across restarts and for all front ends: what was
  // first asked for.
  virtual std::string kept(const std::string& name, const std::string& otherwise) = 0;

  // Of a store that several front ends share; of any other these do nothing.
  virtual bool is_shared() const { return false; }
  // Open jobs of front ends that are gone, which are this one's from now on. One whose pictures cannot be
  // brought here is given by a later call.
  virtual std::vector<JobRecord> adopt() { return {}; }
  // Another front end draws the job: it is asked to stop.
  virtual void ask_cancel(const std::string&) {}
  virtual std::vector<std::string> cancels_asked() { return {}; }  // jobs of this one
};

// Where the files of a store on this machine are; it is made if it is not there, for its owner alone. Throws
// Error(kUsage) for one that another server uses, one that cannot be written, and one on a network file
// system, where locks are not to be trusted.
class StoreFolder {
 public:
  explicit StoreFolder(std::filesystem::path folder);
  ~StoreFolder();
  StoreFolder(const StoreFolder&) = delete;
  StoreFolder& operator=(const StoreFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

// Removes the folders in it that are no job's: what was begun and never kept.
void remove_strangers(const std::filesystem::path& folder,
                      const std::function<bool(const std::string& id)>& is_known);

// The kind of file system if it is one over a network ("NFS"); empty: it is not.
std::string network_file_system(int64_t magic);

std::unique_ptr<JobStore> open_sqlite(const StoreFolder& folder);
// address: "postgresql://user@host/database", or libpq's "host=... dbname=...". The folder names this
// front end, and holds the pictures that its workers begin with. Throws Error(kUsage) for a database that
// cannot be used.
std::unique_ptr<JobStore> open_postgres(const std::string& address, const StoreFolder& folder);

}  // namespace atelier::server
