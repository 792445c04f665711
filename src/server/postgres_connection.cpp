#include "server/postgres_connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace atelier::server {
namespace {

using Steady = std::chrono::steady_clock;

// Of libpq, where the address says nothing else: to connect, s; of bytes that nobody confirms, ms.
constexpr const char *kConnectTime = "5", *kUnconfirmedTime = "10000";
constexpr std::chrono::seconds kPause{2};  // before a database that does not answer is tried again
constexpr std::string_view kDiskFull = "53100";

bool is_answer(const SqlRows& rows) {
  const auto status = PQresultStatus(rows.get());
  return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

}  // namespace

SqlValue SqlValue::binary(std::string_view bytes) {
  SqlValue out{std::string(bytes)};
  out.is_binary = true;
  return out;
}

void SqlRows::Clear::operator()(pg_result* result) const {
  PQclear(result);
}
int SqlRows::count() const {
  return PQntuples(result_.get());
}
std::string SqlRows::text(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column),
          static_cast<size_t>(PQgetlength(result_.get(), row, column))};
}

PostgresConnection::PostgresConnection(std::string address, std::chrono::milliseconds patience)
    : address_(std::move(address)), patience_(patience) {
  connect();
}

PostgresConnection::~PostgresConnection() {
  drop();
}

void PostgresConnection::drop() {
  PQfinish(std::exchange(connection_, nullptr));
}

bool PostgresConnection::is_good() const {
  return connection_ && PQstatus(connection_) == CONNECTION_OK;
}

void PostgresConnection::connect() {
  if (Steady::now() < not_before_) throw Error(Kind::kUsage, "the database gave no answer a moment ago");
  drop();
  // what the address says comes later, and so it counts
  const char* const names[] = {"connect_timeout", "tcp_user_timeout", "dbname", nullptr};
  const char* const values[] = {kConnectTime, kUnconfirmedTime, address_.c_str(), nullptr};
  connection_ = PQconnectdbParams(names, values, 1);
  if (is_good() && PQsetnonblocking(connection_, 1) == 0) return;
  const std::string why = PQerrorMessage(connection_);
  drop();
  not_before_ = Steady::now() + kPause;
  throw Error(Kind::kUsage, str("the database cannot be reached: ", why));
}

SqlRows PostgresConnection::ask(const char* text, const std::vector<SqlValue>& values, ResultForm form) {
  const bool was_there = is_good();
  if (!was_there && is_in_transaction_) throw Error(Kind::kUsage, "the connection to the database was lost");
  if (!was_there) connect();
  auto rows = exchange(text, &values, form);
  if (was_there && !is_in_transaction_ && !is_good() && Steady::now() >= not_before_) {
    connect();
    rows = exchange(text, &values, form);
  }
  if (!is_answer(rows)) fail(rows.get());
  return rows;
}

void PostgresConnection::run(const char* text) {
  if (!is_good()) connect();
  const auto rows = exchange(text, nullptr, ResultForm::kText);
  if (!is_answer(rows)) fail(rows.get());
}

void PostgresConnection::transact(const std::function<void()>& change) {
  ask("BEGIN", {});
  is_in_transaction_ = true;
  try {
    change();
    ask("COMMIT", {});
    is_in_transaction_ = false;
  } catch (...) {
    is_in_transaction_ = false;
    try {
      if (is_good()) run("ROLLBACK");
    } catch (const Error&) {
      drop();  // which rolls it back, too
    }
    throw;
  }
}

void PostgresConnection::fail(pg_result* result) {
  const char* const code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char* const why = connection_ ? PQerrorMessage(connection_) : "it gave no answer in time";
  throw Error(code && code == kDiskFull ? Kind::kCapacity : Kind::kUsage,
              str("the database does not work: ", why));
}

// values: null where there are several statements.
bool PostgresConnection::send(const char* text, const std::vector<SqlValue>* values, ResultForm form) {
  if (!values) return PQsendQuery(connection_, text) == 1;
  std::vector<const char*> bytes;
  std::vector<int> sizes, forms;
  for (const auto& v : *values) {
    bytes.push_back(v.is_null ? nullptr : v.bytes.c_str());
    sizes.push_back(static_cast<int>(v.bytes.size()));
    forms.push_back(v.is_binary);
  }
  return PQsendQueryParams(connection_, text, static_cast<int>(values->size()), nullptr, bytes.data(),
                           sizes.data(), forms.data(), form == ResultForm::kBinary) == 1;
}

// Its answer, or what broke: then no rows, and often no connection.
SqlRows PostgresConnection::exchange(const char* text, const std::vector<SqlValue>* values, ResultForm form) {
  const auto end = Steady::now() + patience_;
  if (!send(text, values, form) || !flush(end)) return SqlRows(nullptr);
  return gather(end);
}

bool PostgresConnection::wait(short events, Deadline end) {
  pollfd watched{.fd = PQsocket(connection_), .events = events, .revents = 0};
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Steady::now()).count();
    const int ready = left <= 0 ? 0 : ::poll(&watched, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno == EINTR) continue;
    // what it still sends belongs to nobody
    drop();
    not_before_ = Steady::now() + kPause;
    return false;
  }
}

bool PostgresConnection::flush(Deadline end) {
  for (;;) {
    const int left = PQflush(connection_);
    if (left <= 0) return left == 0;
    if (!wait(POLLIN | POLLOUT, end)) return false;
    if (!PQconsumeInput(connection_)) return false;
  }
}

SqlRows PostgresConnection::gather(Deadline end) {
  SqlRows out(nullptr);
  for (;;) {
    while (PQisBusy(connection_)) {
      if (!wait(POLLIN, end)) return SqlRows(nullptr);
      if (!PQconsumeInput(connection_)) break;
    }
    SqlRows next(PQgetResult(connection_));
    if (!next.get()) return out;
    if (!out.get() || is_answer(out)) out = std::move(next);  // the first that failed, or the last
  }
}

}  // namespace atelier::server
