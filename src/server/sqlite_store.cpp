// Jobs and small pictures in SQLite with a write-ahead log, large pictures as files beside it.
#include <sqlite3.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "server/job_store.h"
#include "server/sqlite_checkpointer.h"

namespace atelier::server {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSqliteSchema = R"(
  CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    idempotency TEXT,
    is_open INTEGER NOT NULL,
    record TEXT NOT NULL);
  CREATE UNIQUE INDEX IF NOT EXISTS by_idempotency ON jobs (owner, idempotency) WHERE idempotency IS NOT NULL;
  CREATE INDEX IF NOT EXISTS by_open ON jobs (is_open, seq);
  CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner, seq);
  CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL, name TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (job, name)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
)";

[[noreturn]] void fail(sqlite3* database, int code) {
  const bool is_full = (code & 0xff) == SQLITE_FULL;
  throw Error(
      is_full ? Kind::kCapacity : Kind::kUsage,
      str("the store of jobs does not work: ", database ? sqlite3_errmsg(database) : sqlite3_errstr(code)));
}

// One statement; its values are bound in order.
class Statement {
 public:
  Statement(sqlite3* database, const char* text) : database_(database) {
    if (const int code = sqlite3_prepare_v2(database, text, -1, &statement_, nullptr); code != SQLITE_OK)
      fail(database, code);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(const std::string& text) {
    check(sqlite3_bind_text(statement_, ++bound_, text.data(), static_cast<int>(text.size()),
                            SQLITE_TRANSIENT));
    return *this;
  }
  Statement& bind(int64_t number) {
    check(sqlite3_bind_int64(statement_, ++bound_, number));
    return *this;
  }
  Statement& bind_bytes(const std::string& bytes) {
    check(sqlite3_bind_blob64(statement_, ++bound_, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
    return *this;
  }
  Statement& bind_null() {
    check(sqlite3_bind_null(statement_, ++bound_));
    return *this;
  }
  // False when there is no further row.
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) fail(database_, code);
    return code == SQLITE_ROW;
  }
  void reset() {
    sqlite3_reset(statement_);
    bound_ = 0;
  }
  // Of a text, or of bytes.
  std::string text(int column) const {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)))
                 : std::string();
  }

 private:
  void check(int code) const {
    if (code != SQLITE_OK) fail(database_, code);
  }
  sqlite3* const database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

constexpr size_t kLargePicture = size_t{64} << 10;  // bytes

class SqliteStore : public JobStore {
 public:
  explicit SqliteStore(const fs::path& folder) : pictures_(folder / "pictures") {
    const int code =
        sqlite3_open_v2((folder / "jobs.sqlite").c_str(), &database_,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
    if (code != SQLITE_OK) fail(database_, code);
    sqlite3_busy_timeout(database_, 5000);
    run("PRAGMA journal_mode = WAL");
    run("PRAGMA synchronous = FULL");  // what was acknowledged survives a power cut, too
    run(kSqliteSchema);
    checkpointer_.emplace(folder / "jobs.sqlite");
    checkpointer_->follow(database_);
    remove_orphans();
  }
  ~SqliteStore() override {
    checkpointer_.reset();
    sqlite3_close(database_);
  }

  void write(std::span<const JobRecord> records) override {
    const std::scoped_lock lock(mutex_);
    transact([&] {
      for (const auto& record : records) put_waiting(record.id);
      Statement insert(database_,
                       "INSERT INTO jobs (id, owner, idempotency, is_open, record) VALUES (?, ?, ?, ?, ?) "
                       "ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, record = excluded.record");
      for (const auto& record : records) {
        insert.bind(record.id).bind(record.owner);
        if (record.idempotency.empty()) {
          insert.bind_null();
        } else {
          insert.bind(record.idempotency);
        }
        insert.bind(int64_t{!is_final(record.state)})
            .bind(to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace));
        insert.step();
        insert.reset();
      }
    });
    for (const auto& record : records) waiting_.erase(record.id);
  }

  std::optional<JobRecord> find(const std::string& id) override {
    const std::scoped_lock lock(mutex_);
    Statement select(database_, "SELECT record FROM jobs WHERE id = ?");
    if (!select.bind(id).step()) return std::nullopt;
    return job_record_of(select.text(0));
  }

  std::optional<JobRecord> find_idempotent(const std::string& owner, const std::string& key) override {
    const std::scoped_lock lock(mutex_);
    Statement select(database_, "SELECT record FROM jobs WHERE owner = ? AND idempotency = ?");
    if (!select.bind(owner).bind(key).step()) return std::nullopt;
    return job_record_of(select.text(0));
  }

  std::vector<JobRecord> list(const JobQuery& query) override {
    const std::scoped_lock lock(mutex_);
    Statement select(database_,
                     "SELECT record FROM jobs WHERE (?1 OR owner = ?2) AND "
                     "(?3 = '' OR seq < (SELECT seq FROM jobs WHERE id = ?3)) AND "
                     "(?5 = '' OR json_extract(record, '$.kind') = ?5) ORDER BY seq DESC LIMIT ?4");
    select.bind(int64_t{!query.owner}).bind(query.owner.value_or("")).bind(query.before);
    return all_of(select.bind(int64_t{query.most}).bind(query.kind));
  }

  std::vector<JobRecord> take_open() override {
    const std::scoped_lock lock(mutex_);
    Statement select(database_, "SELECT record FROM jobs WHERE is_open = 1 ORDER BY seq");
    return all_of(select);
  }

  void put_picture(const std::string& job, const std::string& name, std::string_view bytes) override {
    if (bytes.size() >= kLargePicture) return write_file_atomically(pictures_ / job / name, bytes);
    const std::scoped_lock lock(mutex_);
    waiting_[job].insert_or_assign(name, std::string(bytes));
  }

  std::optional<std::string> picture(const std::string& job, const std::string& name) override {
    {
      const std::scoped_lock lock(mutex_);
      if (const auto own = waiting_.find(job); own != waiting_.end()) {
        if (const auto found = own->second.find(name); found != own->second.end()) return found->second;
      }
      Statement select(database_, "SELECT bytes FROM pictures WHERE job = ? AND name = ?");
      if (select.bind(job).bind(name).step()) return select.text(0);
    }
    std::error_code error;
    const fs::path file = pictures_ / job / name;
    if (!fs::is_regular_file(file, error)) return std::nullopt;
    return read_file(file);
  }

  void forget_finished(int keep) override {
    std::vector<std::string> old;
    {
      const std::scoped_lock lock(mutex_);
      Statement select(database_,
                       "SELECT id FROM jobs WHERE is_open = 0 ORDER BY seq DESC LIMIT -1 OFFSET ?");
      select.bind(int64_t{keep});
      while (select.step()) old.push_back(select.text(0));
    }
    remove(old);
  }

  void remove(const std::string& id) override { remove(std::vector{id}); }

  std::string kept(const std::string& name, const std::string& otherwise) override {
    const std::scoped_lock lock(mutex_);
    Statement insert(database_, "INSERT OR IGNORE INTO settings (name, value) VALUES (?, ?)");
    insert.bind(name).bind(otherwise).step();
    Statement select(database_, "SELECT value FROM settings WHERE name = ?");
    select.bind(name).step();
    return select.text(0);
  }

 private:
  // In one transaction: each waits for the disk.
  void remove(const std::vector<std::string>& ids) {
    std::error_code ignored;
    for (const auto& id : ids) fs::remove_all(pictures_ / id, ignored);
    const std::scoped_lock lock(mutex_);
    for (const auto& id : ids) waiting_.erase(id);
    transact([&] {
      for (const char* text : {"DELETE FROM pictures WHERE job = ?", "DELETE FROM jobs WHERE id = ?"}) {
        Statement forget(database_, text);
        for (const auto& id : ids) {
          forget.bind(id).step();
          forget.reset();
        }
      }
    });
  }

  void put_waiting(const std::string& job) {
    const auto own = waiting_.find(job);
    if (own == waiting_.end()) return;
    Statement insert(database_, "INSERT OR REPLACE INTO pictures (job, name, bytes) VALUES (?, ?, ?)");
    for (const auto& [name, bytes] : own->second) {
      insert.bind(job).bind(name).bind_bytes(bytes).step();
      insert.reset();
    }
  }

  // Pictures whose jobs were never kept. A disk that is full keeps no server from starting.
  void remove_orphans() {
    try {
      run("DELETE FROM pictures WHERE job NOT IN (SELECT id FROM jobs)");
      remove_strangers(pictures_, [this](const std::string& id) {
        Statement select(database_, "SELECT 1 FROM jobs WHERE id = ?");
        return select.bind(id).step();
      });
    } catch (const Error& e) {
      log::warning(str("pictures that are no job's stay: ", e.what()));
    }
  }

  // All of what `change` does, or nothing. The caller holds mutex_.
  template <class Change>
  void transact(const Change& change) {
    run("BEGIN IMMEDIATE");
    try {
      change();
      run("COMMIT");
    } catch (...) {
      sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr);
      throw;
    }
  }

  void run(const char* text) {
    if (const int code = sqlite3_exec(database_, text, nullptr, nullptr, nullptr); code != SQLITE_OK)
      fail(database_, code);
  }

  static std::vector<JobRecord> all_of(Statement& select) {
    std::vector<JobRecord> out;
    while (select.step()) out.push_back(job_record_of(select.text(0)));
    return out;
  }

  const fs::path pictures_;
  std::mutex mutex_;
  std::map<std::string, std::map<std::string, std::string>> waiting_;  // small pictures, by job and name
  sqlite3* database_ = nullptr;
  std::optional<SqliteCheckpointer> checkpointer_;
};

}  // namespace

std::unique_ptr<JobStore> open_sqlite(const StoreFolder& folder) {
  return std::make_unique<SqliteStore>(folder.path());
}

}  // namespace atelier::server
