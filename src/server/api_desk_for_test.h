// The API over a queue whose engine draws nothing, for the tests of this room.
#pragma once
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/scratch.h"
#include "http/reply_state.h"
#include "server/api.h"
#include "server/passing_store.h"
#include "server/testing.h"

namespace atelier::server {

using namespace std::chrono_literals;

// Fails where it is told to.
class FailingStore : public PassingStore {
 public:
  using PassingStore::PassingStore;
  std::atomic<bool> finds = true, knows = true;
  std::optional<JobRecord> find(const std::string& id) override {
    if (!finds) throw Error(Kind::kUsage, "the disk does not answer");
    return knows ? PassingStore::find(id) : std::nullopt;
  }
};

struct ApiDesk {
  Scratch scratch;
  std::unique_ptr<RequestMaker> maker;
  Metrics metrics;
  StubEngine::Seen seen;
  std::unique_ptr<StoreFolder> folder;
  std::unique_ptr<JobStore> inner;
  std::unique_ptr<FailingStore> store;
  AdapterShelf adapters{""};
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<Api> api;

  explicit ApiDesk(StubEngine::Behaviour behaviour = {}, std::unique_ptr<RequestMaker> what = nullptr)
      : maker(what ? std::move(what) : std::make_unique<StubMaker>()) {
    start(std::move(behaviour));
  }
  ~ApiDesk() { stop(); }  // whoever calls the API ends before it does
  void start(StubEngine::Behaviour behaviour) {
    stop();
    folder = std::make_unique<StoreFolder>(scratch.path());
    inner = open_sqlite(*folder);
    store = std::make_unique<FailingStore>(*inner);
    dispatcher = std::make_unique<Dispatcher>(DispatcherOptions{}, *store, 100, metrics, [this, behaviour] {
      return std::make_unique<StubEngine>(behaviour, &seen);
    });
    ApiOptions options{
        .caps = {.has_urls = true}, .public_url = "http://here", .inputs = folder->path() / "pictures"};
    api = std::make_unique<Api>(std::move(options), *maker, *dispatcher, adapters, *store, metrics);
  }
  void stop() {
    dispatcher.reset();
    api.reset();
    store.reset();
    inner.reset();
    folder.reset();
  }

  // What is being answered; wake: nobody waits.
  static std::shared_ptr<http::ReplyState> state() {
    return std::make_shared<http::ReplyState>(1 << 20, [] {});
  }
  void begin(const std::shared_ptr<http::ReplyState>& reply, const std::string& method,
             const std::string& path, const Json& body = nullptr, http::HeaderLines headers = {}) const {
    http::IncomingRequest request;
    request.method = method;
    request.path = path.substr(0, path.find('?'));
    if (path.find('?') != std::string::npos) request.query = path.substr(path.find('?') + 1);
    request.headers = std::move(headers);
    if (!body.is_null()) request.body = body.dump();
    api->handle(std::move(request), http::HttpReply(reply));
  }
  http::OutgoingResponse ask(const std::string& method, const std::string& path, const Json& body = nullptr,
                             http::HeaderLines headers = {}) const {
    const auto reply = state();
    begin(reply, method, path, body, std::move(headers));
    return head_of(reply);
  }
  static http::OutgoingResponse head_of(const std::shared_ptr<http::ReplyState>& reply) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (std::chrono::steady_clock::now() < end) {
      if (auto output = reply->take(); output && output->head) return *output->head;
      std::this_thread::sleep_for(2ms);
    }
    ADD_FAILURE() << "nobody answered";
    return {};
  }
  void wait_until(const std::function<bool()>& is_true) const {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!is_true()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(2ms);
    }
  }
};

// A PNG of one pixel.
inline constexpr const char* kSmallPicture =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
inline constexpr const char* kGenerations = "/v1/images/generations";

}  // namespace atelier::server
