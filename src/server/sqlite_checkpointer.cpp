#include "server/sqlite_checkpointer.h"

#include <sqlite3.h>

#include "base/error.h"
#include "base/log.h"

namespace atelier::server {
namespace {

constexpr int kDuePages = 1000;
// A log starts anew only where a checkpoint met no later commit, which under load without a pause may never
// be. From here on a commit does it itself.
constexpr int kMostPages = 16 * kDuePages;

int move_pages(sqlite3* database) {
  return sqlite3_wal_checkpoint_v2(database, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
}

}  // namespace

SqliteCheckpointer::SqliteCheckpointer(const std::filesystem::path& file) {
  int code = sqlite3_open_v2(file.c_str(), &own_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  // A connection that has read nothing knows of no log, and moves nothing.
  if (code == SQLITE_OK)
    code = sqlite3_exec(own_, "SELECT COUNT(*) FROM sqlite_master", nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) {
    const std::string reason = own_ ? sqlite3_errmsg(own_) : sqlite3_errstr(code);
    sqlite3_close(own_);
    throw Error(Kind::kUsage, "the store of jobs cannot be opened a second time: " + reason);
  }
  thread_ = std::thread([this] { work(); });
}

SqliteCheckpointer::~SqliteCheckpointer() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_one();
  thread_.join();
  sqlite3_close(own_);
}

void SqliteCheckpointer::follow(sqlite3* database) {
  sqlite3_wal_hook(database, &committed, this);
}

int SqliteCheckpointer::committed(void* self, sqlite3* database, const char*, int pages) {
  if (pages >= kMostPages) {
    move_pages(database);  // busy or full: the next commit tries again
  } else if (pages >= kDuePages) {
    auto& checkpointer = *static_cast<SqliteCheckpointer*>(self);
    {
      const std::scoped_lock lock(checkpointer.mutex_);
      checkpointer.is_due_ = true;
    }
    checkpointer.changed_.notify_one();
  }
  return SQLITE_OK;
}

void SqliteCheckpointer::work() {
  bool is_told = false;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_due_ || is_over_; });
      if (is_over_) return;
      is_due_ = false;
    }
    const int code = move_pages(own_);
    if (code == SQLITE_OK || code == SQLITE_BUSY || is_told) continue;
    is_told = true;
    log::warning(str("the store of jobs keeps its log: ", sqlite3_errmsg(own_)));
  }
}

}  // namespace atelier::server
