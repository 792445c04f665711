// A connection to PostgreSQL that nobody waits for long: a database that gives no answer is as one that
// is not there.
#pragma once
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pg_conn;
struct pg_result;

namespace atelier::server {

// A value of a statement; null where there is none.
struct SqlValue {
  SqlValue(const std::string& text) : bytes(text) {}  // NOLINT(google-explicit-constructor)
  SqlValue(const char* text) : bytes(text) {}         // NOLINT(google-explicit-constructor)
  SqlValue(std::nullptr_t) : is_null(true) {}         // NOLINT(google-explicit-constructor)
  static SqlValue binary(std::string_view bytes);
  std::string bytes;
  bool is_null = false, is_binary = false;
};

class SqlRows {
 public:
  explicit SqlRows(pg_result* result) : result_(result) {}
  int count() const;
  std::string text(int row, int column) const;
  pg_result* get() const { return result_.get(); }

 private:
  struct Clear {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Clear> result_;
};

// One thread at a time. Statements throw Error(kCapacity) for a full disk and Error(kUsage) for anything
// else; after one that was not answered in time, and while the database cannot be reached, they fail at once
// for a moment.
class PostgresConnection {
 public:
  enum class ResultForm { kText, kBinary };
  // address: "postgresql://user@host/database", or libpq's "host=... dbname=..."; what it says of time limits
  // counts more than this does.
  explicit PostgresConnection(std::string address,
                              std::chrono::milliseconds patience = std::chrono::seconds(10));
  ~PostgresConnection();
  PostgresConnection(const PostgresConnection&) = delete;
  PostgresConnection& operator=(const PostgresConnection&) = delete;

  // A connection that broke since the last statement is made again, but not within a transaction.
  SqlRows ask(const char* text, const std::vector<SqlValue>& values, ResultForm form = ResultForm::kText);
  // Several statements.
  void run(const char* text);
  // All of what `change` asks, or nothing.
  void transact(const std::function<void()>& change);

 private:
  using Deadline = std::chrono::steady_clock::time_point;
  void connect();
  void drop();
  bool is_good() const;
  SqlRows exchange(const char* text, const std::vector<SqlValue>* values, ResultForm form);
  bool send(const char* text, const std::vector<SqlValue>* values, ResultForm form);
  bool flush(Deadline end);
  SqlRows gather(Deadline end);
  bool wait(short events, Deadline end);
  [[noreturn]] void fail(pg_result* result);

  const std::string address_;
  const std::chrono::milliseconds patience_;
  pg_conn* connection_ = nullptr;  // null: it is to be made again
  bool is_in_transaction_ = false;
  Deadline not_before_;  // this is tried
};

}  // namespace atelier::server
