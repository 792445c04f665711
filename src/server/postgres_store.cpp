// Jobs and pictures in PostgreSQL, for several front ends with their own workers. A front end draws what it accepted; what
// belongs to one that gives no sign of life any more is taken over by whoever asks first.
#include <libpq-fe.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "server/job_store.h"

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
  CREATE TABLE IF NOT EXISTS atelier_front_ends (name TEXT PRIMARY KEY, seen TIMESTAMPTZ NOT NULL);
)";
constexpr int kSchemaLock = 0x61746c72;  // of pg_advisory_xact_lock: two front ends start at once
constexpr std::chrono::seconds kHeartbeat{2};
constexpr const char* kGone = "interval '10 seconds'";  // without a heartbeat

class Result {
 public:
  explicit Result(PGresult* result) : result_(result) {}
  ~Result() { PQclear(result_); }
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;
  int rows() const { return PQntuples(result_); }
  std::string text(int row, int column) const {
    return {PQgetvalue(result_, row, column), static_cast<size_t>(PQgetlength(result_, row, column))};
  }
  PGresult* get() const { return result_; }

 private:
  PGresult* result_;
};

// A value of a statement; null where there is none.
struct Value {
  Value(const std::string& text) : bytes(text) {}  // NOLINT(google-explicit-constructor)
  Value(const char* text) : bytes(text) {}         // NOLINT(google-explicit-constructor)
  Value(std::nullptr_t) : is_null(true) {}         // NOLINT(google-explicit-constructor)
  static Value binary(std::string_view bytes) {
    Value out{std::string(bytes)};
    out.is_binary = true;
    return out;
  }
  std::string bytes;
  bool is_null = false, is_binary = false;
};

class PostgresStore : public JobStore {
 public:
  PostgresStore(std::string address, std::string front_end, fs::path inputs)
      : address_(std::move(address)), front_end_(std::move(front_end)), inputs_(std::move(inputs)) {
    connect();
    run(str("BEGIN; SELECT pg_advisory_xact_lock(", kSchemaLock, "); ", kPostgresSchema, " COMMIT").c_str());
    beat();
    heart_ = std::thread([this] { keep_beating(); });
  }
  ~PostgresStore() override {
    {
      const std::scoped_lock lock(heart_mutex_);
      is_over_ = true;
    }
    heart_changed_.notify_one();
    heart_.join();
    PQfinish(connection_);
  }

  void write(std::span<const JobRecord> records) override {
    const std::scoped_lock lock(mutex_);
    ask("BEGIN", {});
    try {
      for (const auto& r : records) {
        ask("INSERT INTO atelier_jobs (id, owner, idempotency, is_open, front_end, record) VALUES ($1, $2, "
            "$3, $4, $5, $6) "
            "ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, record = excluded.record, front_end "
            "= excluded.front_end",
            {r.id, r.owner, r.idempotency.empty() ? Value(nullptr) : Value(r.idempotency),
             is_final(r.state) ? "f" : "t", front_end_,
             to_json(r).dump(-1, ' ', false, Json::error_handler_t::replace)});
      }
      ask("COMMIT", {});
    } catch (...) {
      PQclear(PQexec(connection_, "ROLLBACK"));
      throw;
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

  std::vector<JobRecord> take_open() override {
    auto mine =
        all("SELECT record FROM atelier_jobs WHERE is_open AND front_end = $1 ORDER BY seq", {front_end_});
    for (auto& other : adopt()) mine.push_back(std::move(other));
    for (auto& record : mine) bring_inputs(record);
    return mine;
  }
  std::vector<JobRecord> adopt() override {
    const std::string text =
        str("UPDATE atelier_jobs SET front_end = $1 WHERE id IN (SELECT id FROM atelier_jobs j WHERE is_open "
            "AND front_end <> $1 AND NOT "
            "EXISTS (SELECT 1 FROM atelier_front_ends f WHERE f.name = j.front_end AND f.seen > now() - ",
            kGone, ") ORDER BY seq LIMIT 64 FOR UPDATE SKIP LOCKED) RETURNING record");
    auto out = all(text.c_str(), {front_end_});
    for (auto& record : out) bring_inputs(record);
    return out;
  }
  bool is_shared() const override { return true; }
  void ask_cancel(const std::string& id) override {
    const std::scoped_lock lock(mutex_);
    ask("UPDATE atelier_jobs SET cancel_asked = true WHERE id = $1 AND is_open", {id});
  }
  std::vector<std::string> cancels_asked() override {
    const std::scoped_lock lock(mutex_);
    const auto rows =
        ask("SELECT id FROM atelier_jobs WHERE is_open AND cancel_asked AND front_end = $1", {front_end_});
    std::vector<std::string> out;
    for (int i = 0; i < rows->rows(); ++i) out.push_back(rows->text(i, 0));
    return out;
  }

  void put_picture(const std::string& job, const std::string& name, std::string_view bytes) override {
    const std::scoped_lock lock(mutex_);
    ask("INSERT INTO atelier_pictures (job, name, bytes) VALUES ($1, $2, $3) ON CONFLICT (job, name) DO "
        "UPDATE SET bytes = excluded.bytes",
        {job, name, Value::binary(bytes)});
  }
  std::optional<std::string> picture(const std::string& job, const std::string& name) override {
    const std::scoped_lock lock(mutex_);
    const auto rows =
        ask("SELECT bytes FROM atelier_pictures WHERE job = $1 AND name = $2", {job, name}, Form::kBinary);
    return rows->rows() > 0 ? std::optional(rows->text(0, 0)) : std::nullopt;
  }

  void forget_finished(int keep) override {
    std::vector<std::string> old;
    {
      const std::scoped_lock lock(mutex_);
      const auto rows =
          ask("SELECT id FROM atelier_jobs WHERE NOT is_open ORDER BY seq DESC OFFSET $1::bigint",
              {std::to_string(keep)});
      for (int i = 0; i < rows->rows(); ++i) old.push_back(rows->text(i, 0));
    }
    for (const auto& id : old) remove(id);
  }
  void remove(const std::string& id) override {
    std::error_code ignored;
    fs::remove_all(inputs_ / id, ignored);
    const std::scoped_lock lock(mutex_);
    ask("DELETE FROM atelier_pictures WHERE job = $1", {id});
    ask("DELETE FROM atelier_jobs WHERE id = $1", {id});
  }

 private:
  enum class Form { kText, kBinary };

  void connect() {
    connection_ = PQconnectdb(address_.c_str());
    if (PQstatus(connection_) == CONNECTION_OK) return;
    const std::string why = PQerrorMessage(connection_);
    PQfinish(std::exchange(connection_, nullptr));
    throw Error(Kind::kUsage, str("the database cannot be reached: ", why));
  }

  void run(const char* text) {
    const Result result(PQexec(connection_, text));
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
      throw Error(Kind::kUsage,
                  str("the database does not take the tables of jobs: ", PQerrorMessage(connection_)));
  }

  // A connection that broke between two statements is made again; within a transaction its statements fail.
  std::unique_ptr<Result> ask(const char* text, const std::vector<Value>& values, Form form = Form::kText) {
    const bool is_idle = PQtransactionStatus(connection_) == PQTRANS_IDLE ||
                         PQtransactionStatus(connection_) == PQTRANS_UNKNOWN;
    for (int tries = 2;; --tries) {
      if (PQstatus(connection_) != CONNECTION_OK) PQreset(connection_);
      auto result = send(text, values, form);
      const auto status = PQresultStatus(result->get());
      if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) return result;
      if (tries > 1 && is_idle && PQstatus(connection_) != CONNECTION_OK) continue;
      const char* const code = PQresultErrorField(result->get(), PG_DIAG_SQLSTATE);
      const bool is_full = code && std::string_view(code) == "53100";
      throw Error(is_full ? Kind::kCapacity : Kind::kUsage,
                  str("the database does not work: ", PQerrorMessage(connection_)));
    }
  }

  std::unique_ptr<Result> send(const char* text, const std::vector<Value>& values, Form form) {
    std::vector<const char*> bytes;
    std::vector<int> sizes, forms;
    for (const auto& v : values) {
      bytes.push_back(v.is_null ? nullptr : v.bytes.c_str());
      sizes.push_back(static_cast<int>(v.bytes.size()));
      forms.push_back(v.is_binary);
    }
    return std::make_unique<Result>(PQexecParams(connection_, text, static_cast<int>(values.size()), nullptr,
                                                 bytes.data(), sizes.data(), forms.data(),
                                                 form == Form::kBinary));
  }

  std::vector<JobRecord> all(const char* text, const std::vector<Value>& values) {
    const std::scoped_lock lock(mutex_);
    const auto rows = ask(text, values);
    std::vector<JobRecord> out;
    for (int i = 0; i < rows->rows(); ++i) out.push_back(job_record_from_json(Json::parse(rows->text(i, 0))));
    return out;
  }
  std::optional<JobRecord> one(const char* text, const std::vector<Value>& values) {
    auto rows = all(text, values);
    return rows.empty() ? std::nullopt : std::optional(std::move(rows.front()));
  }

  // Workers read the pictures that a request begins with from files of their own host.
  void bring_inputs(JobRecord& record) {
    for (const char* name : {"input_image", "input_mask"}) {
      const auto bytes = picture(record.id, name);
      if (!bytes) continue;
      const auto file = inputs_ / record.id / name;
      write_file_atomically(file, *bytes);
      for (auto& request : record.requests) {
        auto& slot = std::string_view(name) == "input_image" ? request.image : request.mask;
        if (slot) slot = file.string();
      }
    }
  }

  void beat() {
    const std::scoped_lock lock(mutex_);
    ask("INSERT INTO atelier_front_ends (name, seen) VALUES ($1, now()) ON CONFLICT (name) DO UPDATE SET "
        "seen = now()",
        {front_end_});
  }
  void keep_beating() {
    std::unique_lock lock(heart_mutex_);
    while (!heart_changed_.wait_for(lock, kHeartbeat, [this] { return is_over_; })) {
      try {
        beat();
      } catch (const Error& e) {
        log::warning(e.what());
      }
    }
  }

  const std::string address_, front_end_;
  const fs::path inputs_;
  std::mutex mutex_;
  PGconn* connection_ = nullptr;
  std::mutex heart_mutex_;
  std::condition_variable heart_changed_;
  bool is_over_ = false;
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
