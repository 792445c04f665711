// Jobs and pictures in PostgreSQL, for several front ends with their own workers. A front end draws what it
// accepted; what belongs to one that gives no sign of life any more is taken over by whoever asks first.
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "request/file_inputs.h"
#include "server/job_store.h"
#include "server/postgres_connection.h"

namespace atelier::server {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPostgresSchema = R"(
  CREATE TABLE IF NOT EXISTS atelier_jobs (
    seq BIGSERIAL PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, idempotency TEXT, is_open BOOLEAN NOT NULL,
    front_end TEXT NOT NULL, cancel_asked BOOLEAN NOT NULL DEFAULT false, record TEXT NOT NULL);
  CREATE UNIQUE INDEX IF NOT EXISTS atelier_by_idempotency ON atelier_jobs (owner, idempotency);
  CREATE INDEX IF NOT EXISTS atelier_by_open ON atelier_jobs (is_open, seq);
  CREATE TABLE IF NOT EXISTS atelier_pictures (job TEXT NOT NULL, name TEXT NOT NULL, bytes BYTEA NOT NULL, PRIMARY KEY (job, name));
  ALTER TABLE atelier_pictures ADD COLUMN IF NOT EXISTS stored TIMESTAMPTZ NOT NULL DEFAULT now();
  CREATE TABLE IF NOT EXISTS atelier_front_ends (name TEXT PRIMARY KEY, seen TIMESTAMPTZ NOT NULL);
  CREATE TABLE IF NOT EXISTS atelier_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
)";
constexpr int kSchemaLock = 0x61746c72;  // of pg_advisory_xact_lock: two front ends start at once
constexpr std::chrono::seconds kHeartbeat{2};
constexpr const char* kGone = "interval '10 seconds'";  // without a heartbeat
// Of pictures that no job has: one that is about to be accepted may still come.
constexpr const char* kForgotten = "interval '1 hour'";
constexpr std::chrono::hours kSweep{1};

class PostgresStore : public JobStore {
 public:
  PostgresStore(std::string address, std::string front_end, fs::path inputs)
      : front_end_(std::move(front_end)), inputs_(std::move(inputs)), connection_(std::move(address)) {
    connection_.run(
        str("BEGIN; SELECT pg_advisory_xact_lock(", kSchemaLock, "); ", kPostgresSchema, " COMMIT").c_str());
    remove_strangers(inputs_, [this](const std::string& id) {
      return !ids("SELECT id FROM atelier_jobs WHERE id = $1", {id}).empty();
    });
    beat();
    sweep();
    heart_ = std::thread([this] { keep_beating(); });
  }
  ~PostgresStore() override {
    {
      const std::scoped_lock lock(heart_mutex_);
      is_over_ = true;
    }
    heart_changed_.notify_one();
    heart_.join();
  }

  void write(std::span<const JobRecord> records) override {
    const std::scoped_lock lock(mutex_);
    for (const auto& r : records) known_.insert(r.id);  // before anybody can find them there
    connection_.transact([&] {
      for (const auto& r : records) {
        connection_.ask(
            "INSERT INTO atelier_jobs (id, owner, idempotency, is_open, front_end, record) VALUES ($1, $2, "
            "$3, $4, $5, $6) "
            "ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, record = excluded.record, front_end "
            "= excluded.front_end",
            {r.id, r.owner, r.idempotency.empty() ? SqlValue(nullptr) : SqlValue(r.idempotency),
             is_final(r.state) ? "f" : "t", front_end_,
             to_json(r).dump(-1, ' ', false, Json::error_handler_t::replace)});
      }
    });
    for (const auto& r : records) {
      if (is_final(r.state)) known_.erase(r.id);
    }
  }

  std::optional<JobRecord> find(const std::string& id) override {
    return one("SELECT record FROM atelier_jobs WHERE id = $1", {id});
  }
  std::optional<JobRecord> find_idempotent(const std::string& owner, const std::string& key) override {
    return one("SELECT record FROM atelier_jobs WHERE owner = $1 AND idempotency = $2", {owner, key});
  }
  std::vector<JobRecord> list(const JobQuery& query) override {
    return all(
        "SELECT record FROM atelier_jobs WHERE ($1::boolean OR owner = $2) AND "
        "($3 = '' OR seq < (SELECT seq FROM atelier_jobs WHERE id = $3)) AND "
        "($5 = '' OR record::json ->> 'kind' = $5) ORDER BY seq DESC LIMIT $4::bigint",
        {query.owner ? "f" : "t", query.owner.value_or(""), query.before, std::to_string(query.most),
         query.kind});
  }

  std::vector<JobRecord> take_open() override { return adopt(); }
  // Whatever is this one's and not known here, so that a job is not lost where an answer was, or where the
  // disk is full.
  std::vector<JobRecord> adopt() override {
    std::vector<std::string> found;
    {
      const std::scoped_lock lock(mutex_);
      const std::string text =
          str("UPDATE atelier_jobs SET front_end = $1 WHERE id IN (SELECT id FROM atelier_jobs j WHERE "
              "is_open AND front_end <> $1 AND NOT "
              "EXISTS (SELECT 1 FROM atelier_front_ends f WHERE f.name = j.front_end AND f.seen > now() - ",
              kGone, ") ORDER BY seq LIMIT 64 FOR UPDATE SKIP LOCKED)");
      connection_.ask(text.c_str(), {front_end_});
      const auto rows = connection_.ask(
          "SELECT id FROM atelier_jobs WHERE is_open AND front_end = $1 ORDER BY seq", {front_end_});
      for (int i = 0; i < rows.count(); ++i) {
        if (!known_.contains(rows.text(i, 0))) found.push_back(rows.text(i, 0));
      }
    }
    std::vector<JobRecord> out;
    for (const auto& id : found) {
      if (auto record = brought(id)) out.push_back(std::move(*record));
    }
    return out;
  }
  bool is_shared() const override { return true; }
  void ask_cancel(const std::string& id) override {
    const std::scoped_lock lock(mutex_);
    connection_.ask("UPDATE atelier_jobs SET cancel_asked = true WHERE id = $1 AND is_open", {id});
  }
  std::vector<std::string> cancels_asked() override {
    const std::scoped_lock lock(mutex_);
    return ids("SELECT id FROM atelier_jobs WHERE is_open AND cancel_asked AND front_end = $1", {front_end_});
  }

  void put_picture(const std::string& job, const std::string& name, std::string_view bytes) override {
    const std::scoped_lock lock(mutex_);
    connection_.ask(
        "INSERT INTO atelier_pictures (job, name, bytes) VALUES ($1, $2, $3) ON CONFLICT (job, name) DO "
        "UPDATE SET bytes = excluded.bytes, stored = now()",
        {job, name, SqlValue::binary(bytes)});
  }
  std::optional<std::string> picture(const std::string& job, const std::string& name) override {
    const std::scoped_lock lock(mutex_);
    const auto rows = connection_.ask("SELECT bytes FROM atelier_pictures WHERE job = $1 AND name = $2",
                                      {job, name}, PostgresConnection::ResultForm::kBinary);
    return rows.count() > 0 ? std::optional(rows.text(0, 0)) : std::nullopt;
  }

  void forget_finished(int keep) override {
    std::vector<std::string> old;
    {
      const std::scoped_lock lock(mutex_);
      old = ids("SELECT id FROM atelier_jobs WHERE NOT is_open ORDER BY seq DESC OFFSET $1::bigint",
                {std::to_string(keep)});
    }
    remove(old);
  }
  void remove(const std::string& id) override { remove(std::vector{id}); }
  std::string kept(const std::string& name, const std::string& otherwise) override {
    const std::scoped_lock lock(mutex_);
    connection_.ask(
        "INSERT INTO atelier_settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        {name, otherwise});
    return connection_.ask("SELECT value FROM atelier_settings WHERE name = $1", {name}).text(0, 0);
  }

 private:
  // All of it, or nothing: a job whose pictures are gone is nobody's.
  void remove(const std::vector<std::string>& ids) {
    const std::scoped_lock lock(mutex_);
    connection_.transact([&] {
      for (const auto& id : ids) {
        connection_.ask("DELETE FROM atelier_pictures WHERE job = $1", {id});
        connection_.ask("DELETE FROM atelier_jobs WHERE id = $1", {id});
      }
    });
    std::error_code ignored;
    for (const auto& id : ids) {
      known_.erase(id);
      fs::remove_all(inputs_ / id, ignored);
    }
  }

  // The caller holds mutex_.
  std::vector<std::string> ids(const char* text, const std::vector<SqlValue>& values) {
    const auto rows = connection_.ask(text, values);
    std::vector<std::string> out;
    for (int i = 0; i < rows.count(); ++i) out.push_back(rows.text(i, 0));
    return out;
  }

  // With its inputs, and known from now on. None where that fails: it is tried again.
  std::optional<JobRecord> brought(const std::string& id) {
    try {
      auto record = find(id);
      if (!record || is_final(record->state)) return std::nullopt;
      bring_inputs(*record);
      const std::scoped_lock lock(mutex_);
      known_.insert(id);
      reported_.erase(id);
      return record;
    } catch (const std::exception& e) {
      const std::scoped_lock lock(mutex_);
      if (reported_.insert(id).second)
        log::error(str("job=", id, " cannot be taken up yet, and is tried again: ", e.what()));
      return std::nullopt;
    }
  }

  std::vector<JobRecord> all(const char* text, const std::vector<SqlValue>& values) {
    const std::scoped_lock lock(mutex_);
    const auto rows = connection_.ask(text, values);
    std::vector<JobRecord> out;
    for (int i = 0; i < rows.count(); ++i) out.push_back(job_record_of(rows.text(i, 0)));
    return out;
  }
  std::optional<JobRecord> one(const char* text, const std::vector<SqlValue>& values) {
    auto rows = all(text, values);
    return rows.empty() ? std::nullopt : std::optional(std::move(rows.front()));
  }

  // Workers read the pictures that a request begins with from files of their own host.
  void bring_inputs(JobRecord& record) {
    for (const auto& [field, input, digest] : request::kFileInputs) {
      for (auto& request : record.requests) {
        if (!(request.*input)) continue;
        const auto name = fs::path(*(request.*input)).filename();
        const auto file = inputs_ / record.id / name;
        if (!fs::exists(file)) {  // nor brought for another picture of the job
          const auto bytes = picture(record.id, name.string());
          if (!bytes) continue;
          write_file_atomically(file, *bytes);
        }
        request.*input = file.string();
      }
    }
  }

  void beat() {
    const std::scoped_lock lock(mutex_);
    connection_.ask(
        "INSERT INTO atelier_front_ends (name, seen) VALUES ($1, now()) ON CONFLICT (name) DO UPDATE SET "
        "seen = now()",
        {front_end_});
  }
  // A front end that ended between its pictures and their job leaves them to nobody.
  void sweep() {
    swept_ = std::chrono::steady_clock::now();
    const std::scoped_lock lock(mutex_);
    connection_.ask(str("DELETE FROM atelier_pictures p WHERE stored < now() - ", kForgotten,
                        " AND NOT EXISTS (SELECT 1 FROM atelier_jobs j WHERE j.id = p.job)")
                        .c_str(),
                    {});
  }
  void keep_beating() {
    std::unique_lock lock(heart_mutex_);
    while (!heart_changed_.wait_for(lock, kHeartbeat, [this] { return is_over_; })) {
      try {
        beat();
        if (std::chrono::steady_clock::now() - swept_ > kSweep) sweep();
      } catch (const std::exception& e) {
        log::warning(e.what());
      }
    }
  }

  const std::string front_end_;
  const fs::path inputs_;
  std::mutex mutex_;  // of what follows
  PostgresConnection connection_;
  std::set<std::string> known_;     // open jobs that this process has
  std::set<std::string> reported_;  // that it cannot take up
  std::mutex heart_mutex_;
  std::condition_variable heart_changed_;
  bool is_over_ = false;
  std::chrono::steady_clock::time_point swept_;  // by whoever runs the heart
  std::thread heart_;
};

}  // namespace

std::unique_ptr<JobStore> open_postgres(const std::string& address, const StoreFolder& folder) {
  // one name for one folder: what this front end had accepted before it ended is its own again at once
  const auto file = folder.path() / "front_end";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) write_file_atomically(file, new_id("front_"));
  return std::make_unique<PostgresStore>(address, read_file(file), folder.path() / "pictures");
}

}  // namespace atelier::server
