// Moves what SQLite's write-ahead log holds into the database, on a thread and a connection of its own. A
// commit that did it itself (SQLite's default, every 1000 pages) would keep its job waiting for two more
// syncs of the disk.
#pragma once
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

struct sqlite3;

namespace atelier::server {

class SqliteCheckpointer {
 public:
  // Of the database at `file`, whose journal is a write-ahead log already. Errors: Kind::kUsage, it cannot be
  // opened.
  explicit SqliteCheckpointer(const std::filesystem::path& file);
  ~SqliteCheckpointer();
  SqliteCheckpointer(const SqliteCheckpointer&) = delete;
  SqliteCheckpointer& operator=(const SqliteCheckpointer&) = delete;

  // Calls this object after each commit of `database`, which must not outlive it.
  void follow(sqlite3* database);

 private:
  static int committed(void* self, sqlite3* database, const char* name, int pages);
  void work();

  sqlite3* own_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_due_ = false, is_over_ = false;
  std::thread thread_;
};

}  // namespace atelier::server
