// A database that is not there, or does not answer: what stands for it here speaks as much of its protocol as
// it takes to connect (PostgreSQL, Frontend/Backend Protocol 3.0, Message Flow).
#include "server/postgres_connection.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/scratch.h"

namespace atelier::server {
namespace {

using namespace std::chrono_literals;

class SilentDatabase {
 public:
  SilentDatabase() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 4), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { welcome(); });
  }
  ~SilentDatabase() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  std::string address() const {
    return str("host=127.0.0.1 port=", port_, " user=a dbname=b sslmode=disable gssencmode=disable");
  }

 private:
  void welcome() {
    for (int client; (client = ::accept(listener_, nullptr, nullptr)) >= 0;) {
      char head[1024];
      if (::recv(client, head, sizeof head, 0) > 0) {
        const std::string ready("R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", 15);
        [[maybe_unused]] const auto sent = ::send(client, ready.data(), ready.size(), MSG_NOSIGNAL);
        while (::recv(client, head, sizeof head, 0) > 0) {
        }
      }
      ::close(client);
    }
  }
  int listener_, port_ = 0;
  std::thread thread_;
};

TEST(PostgresConnection_ADatabaseThatIsNotThere, IsNamed) {
  const auto message = message_of(
      Kind::kUsage, [] { PostgresConnection connection("host=127.0.0.1 port=1 user=a dbname=b"); });
  EXPECT_NE(message.find("the database cannot be reached"), std::string::npos) << message;
}

TEST(PostgresConnection_OneThatDoesNotAnswer, IsGivenUpInTimeAndThenAtOnce) {
  const SilentDatabase database;
  PostgresConnection connection(database.address(), 300ms);
  const auto seconds = [&] {
    const auto begin = std::chrono::steady_clock::now();
    message_of(Kind::kUsage, [&] { connection.ask("SELECT 1", {}); });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const double first = seconds();
  EXPECT_GT(first, 0.25);
  EXPECT_LT(first, 5);
  EXPECT_LT(seconds(), 0.1);
  std::this_thread::sleep_for(2100ms);
  EXPECT_GT(seconds(), 0.25);  // it was tried again
  EXPECT_THROW(connection.transact([] {}), Error);
}

}  // namespace
}  // namespace atelier::server
