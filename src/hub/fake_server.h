// A small HTTP server on the loopback, for tests: one request per connection, answers made by a function.
#pragma once
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace atelier::hub {

class FakeServer {
 public:
  struct ReceivedRequest {
    std::string method, path;
    std::map<std::string, std::string> headers;  // names in lower case
  };
  struct Reply {
    int status = 200;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;
    int64_t cut_after = -1;  // close after this many bytes of the body
  };
  using Handler = std::function<Reply(const ReceivedRequest&)>;

  explicit FakeServer(Handler handler);
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  ~FakeServer();

  std::string url() const;
  // What was asked so far.
  std::vector<ReceivedRequest> requests() const;

 private:
  void serve();
  void answer(int connection);

  Handler handler_;
  int listener_ = -1, port_ = 0;
  mutable std::mutex mutex_;
  std::vector<ReceivedRequest> requests_;
  std::thread thread_;
};

}  // namespace atelier::hub
