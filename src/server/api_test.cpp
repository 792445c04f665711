// The API over a queue whose engine draws nothing: clients that leave at the wrong moment, stores that fail.
#include "server/api.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/scratch.h"
#include "http/reply_state.h"
#include "server/base64.h"
#include "server/passing_store.h"
#include "server/testing.h"

namespace atelier::server {
namespace {

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

// Draws videos of 4k + 1 frames, where it has to be shown a picture.
class VideoMaker : public StubMaker {
 public:
  VideoMaker() {
    card_ = StubMaker::card();
    card_.is_video = card_.needs_image = true;
    card_.frame_step = 8;
    card_.fps = 16;
  }
  MadeRequests make(request::PromptRow row, const std::string& format) const override {
    if (format == "png" && row.request.num_frames.value_or(81) != 1)
      throw Error(Kind::kUsage, "a png file holds one picture");
    if (row.request.prompt == "odd frames")
      throw Error(Kind::kUsage, str(row.request.last_image.value(), " has another size"));
    if (!row.request.image) throw Error(Kind::kUsage, "nothing is drawn without an image");
    return StubMaker::make(std::move(row), format);
  }
  const ModelCard& card() const override { return card_; }

 private:
  ModelCard card_;
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
constexpr const char* kSmallPicture =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
constexpr const char* kGenerations = "/v1/images/generations";

// Its connection may break before its request is in the queue.
TEST(Api_AClientThatLeftBeforeItsJobWasKnown, HasNothingDrawn) {
  ApiDesk desk({.step_time = 20ms});
  const auto reply = ApiDesk::state();
  reply->mark_gone();
  desk.begin(reply, "POST", kGenerations, {{"prompt", "a fox"}, {"steps", 150}});
  desk.wait_until([&] {
    const auto jobs = desk.dispatcher->list({.most = 5}).records;
    return !jobs.empty() && jobs.front().state == JobState::kCancelled;
  });
}

TEST(Api_AJobThatWasForgottenMeanwhile, IsSaidToBe) {
  ApiDesk desk;
  const http::HeaderLines named{{"Idempotency-Key", "once"}};
  const Json body{{"prompt", "a fox"}};
  EXPECT_EQ(desk.ask("POST", kGenerations, body, named).status, 200);
  desk.wait_until([&] {
    const auto kept = desk.inner->find_idempotent("", "once");
    return kept && is_final(kept->state) && desk.dispatcher->status().at("open_batches") == 0;
  });
  std::this_thread::sleep_for(300ms);  // until it is in the store alone
  desk.store->knows = false;
  const auto answer = desk.ask("POST", kGenerations, body, named);
  EXPECT_EQ(answer.status, 409) << answer.body;
}

TEST(Api_AStoreThatFails, IsAnsweredOverAWebSocketToo) {
  ApiDesk desk;
  const auto state = ApiDesk::state();
  http::IncomingRequest request;
  request.method = "GET", request.path = "/v1/events";
  desk.api->open(std::move(request), http::WebSocket(state));
  const auto said = [&](const std::string& text) {
    state->deliver(text);
    const auto output = state->take();
    return output && !output->pieces.empty() ? output->pieces.front() : std::string();
  };
  EXPECT_NE(said(R"({"cancel":"job_1"})").find("job_not_found"), std::string::npos);
  desk.store->finds = false;
  const auto answer = said(R"({"cancel":"job_1"})");
  EXPECT_NE(answer.find("internal_error"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("disk"), std::string::npos);
  desk.store->finds = true;
  EXPECT_NE(said(R"({"cancel":"job_1"})").find("job_not_found"), std::string::npos);
}

TEST(Api_SignedAddresses, HoldAfterARestart) {
  ApiDesk desk;
  const auto drawn = desk.ask("POST", kGenerations, {{"prompt", "a fox"}, {"response_format", "url"}});
  ASSERT_EQ(drawn.status, 200) << drawn.body;
  const std::string url = Json::parse(drawn.body).at("data").at(0).at("url");
  const std::string path = url.substr(std::string("http://here").size());
  EXPECT_EQ(desk.ask("GET", path).body, "a fox 7");
  const std::string id = Json::parse(drawn.body).at("job");
  desk.wait_until([&] {
    const auto kept = desk.inner->find(id);
    return kept && is_final(kept->state);
  });
  desk.start({});
  EXPECT_EQ(desk.ask("GET", path).body, "a fox 7");
  EXPECT_EQ(desk.ask("GET", path + "0").status, 404);
}

TEST(Api_TheTryOfAPicture, IsOneFrameOfAModelOfVideosAndShowsItWhatItNeeds) {
  ApiDesk desk({}, std::make_unique<VideoMaker>());
  const auto answer = desk.ask("GET", "/healthz/generate");
  EXPECT_EQ(answer.status, 200) << answer.body;
  const std::scoped_lock lock(desk.seen.mutex);
  ASSERT_EQ(desk.seen.batches.size(), 1u);
  EXPECT_TRUE(std::filesystem::exists(desk.seen.batches[0][0].image.value()));
}

TEST(Api_AVideoMayBeGivenItsFrames, TheFirstAndTheLast) {
  ApiDesk desk({}, std::make_unique<VideoMaker>());
  const auto ask = [&](const Json& last, const char* prompt = "a fox") {
    const Json body{{"prompt", prompt},
                    {"num_frames", 9},
                    {"output_format", "webp"},
                    {"input_reference", kSmallPicture},
                    {"last_image", last}};
    return desk.ask("POST", "/v1/videos", body, {{"Content-Type", "application/json"}});
  };
  EXPECT_EQ(ask(kSmallPicture).status, 200);
  desk.wait_until([&] {
    const std::scoped_lock lock(desk.seen.mutex);
    return !desk.seen.batches.empty();
  });
  {
    const std::scoped_lock lock(desk.seen.mutex);
    const auto& drawn = desk.seen.batches[0][0];
    EXPECT_TRUE(std::filesystem::exists(drawn.last_image.value()));
    EXPECT_NE(drawn.last_image, drawn.image);
  }
  const auto refused = ask("bm8gcGljdHVyZQ==");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("last_image"), std::string::npos) << refused.body;
  const auto odd = ask(kSmallPicture, "odd frames");
  EXPECT_EQ(odd.status, 400);
  EXPECT_NE(odd.body.find("\"last_image has another size\""), std::string::npos) << odd.body;
  EXPECT_EQ(ask(Json::array({kSmallPicture, kSmallPicture})).status, 400);
}

TEST(Api_PicturesOfARequestThatIsRefused, GoWithIt) {
  for (const char* path : {"/v1/images/edits", "/v1/videos"}) {
    const bool is_video = std::string_view(path) == "/v1/videos";
    ApiDesk desk({}, is_video ? std::make_unique<VideoMaker>() : nullptr);
    const auto kept = [&] {
      std::filesystem::directory_iterator at(desk.folder->path() / "pictures"), end;
      return std::distance(at, end);
    };
    const auto ask = [&](Json more, const std::string& key) {
      more.update({{"prompt", "a fox"}, {is_video ? "input_reference" : "image", kSmallPicture}});
      if (is_video) more["output_format"] = "webp";
      return desk.ask("POST", path, more, {{"Content-Type", "application/json"}, {"Idempotency-Key", key}});
    };
    EXPECT_EQ(ask({{"size", "70x70"}}, "other").status, 400);
    EXPECT_EQ(kept(), 0) << path;
    EXPECT_EQ(ask(Json::object(), "once").status, 200);
    EXPECT_EQ(kept(), 1) << path;
    EXPECT_EQ(ask(Json::object(), "once").status, 200);
    EXPECT_EQ(kept(), 1) << path << ": the job of this key has its own";
    const Json stream = is_video ? Json::object() : Json{{"stream", true}};
    Json another = stream;
    another["seed"] = 8;
    EXPECT_EQ(ask(another, "once").status, 422) << "a stream, too, is refused before it begins";
    EXPECT_EQ(kept(), 1) << path << ": the key is another request's";
    desk.dispatcher->drain(20s);
    EXPECT_EQ(ask(stream, "late").status, 503);
    EXPECT_EQ(kept(), 1) << path << ": the server ends";
  }
}

TEST(Api_EveryAnswer_HasAnId, AlsoThoseThatNoHandlerGives) {
  ApiDesk desk;
  std::set<std::string> ids;
  const auto look = [&](const http::OutgoingResponse& answer) {
    const auto id = http::header_of(answer.headers, "x-request-id");
    ASSERT_TRUE(id) << answer.status;
    EXPECT_TRUE(ids.insert(*id).second);
    EXPECT_EQ(http::header_of(answer.headers, "x-content-type-options"), "nosniff");
    const std::string line = str("atelier_http_requests_total{code=\"", answer.status, "\"} 1\n");
    EXPECT_NE(desk.metrics.text().find(line), std::string::npos) << line;
  };
  const auto plan = [&](const char* method, const char* path, const char* host = "localhost") {
    http::IncomingRequest head;
    head.method = method, head.path = path, head.headers = {{"Host", host}};
    return desk.api->plan(head).refusal.value();
  };
  look(plan("GET", "/nowhere"));
  look(plan("PUT", "/v1/models"));
  look(plan("POST", kGenerations));  // of no type
  look(plan("GET", "/", "evil.example"));
  for (const int status : {413, 431, 400}) look(desk.api->own_answer(status, "too much"));
}

TEST(Api_Notes, AreInTheAnswerWithoutPathsOrFlags) {
  ApiDesk desk;
  const http::HeaderLines json{{"Content-Type", "application/json"}};
  Json body{{"prompt", "a fox"}, {"image", kSmallPicture}, {"size", "64x32"}};
  const Json notes = Json::array({"image changes its shape: width and height keep it"});
  const auto answer = desk.ask("POST", "/v1/images/edits", body, json);
  EXPECT_EQ(Json::parse(answer.body).at("notes"), notes) << answer.body;
  body["async"] = true;
  EXPECT_EQ(Json::parse(desk.ask("POST", "/v1/images/edits", body, json).body).at("notes"), notes);
  body["size"] = "32x32";
  EXPECT_EQ(Json::parse(desk.ask("POST", "/v1/images/edits", body, json).body).at("notes"), Json::array());
}

TEST(Api_ANameTwiceInABody, IsRefused) {
  ApiDesk desk;
  const auto ask = [&](const std::string& body) {
    http::IncomingRequest request;
    request.method = "POST", request.path = kGenerations, request.body = body;
    const auto reply = ApiDesk::state();
    desk.api->handle(std::move(request), http::HttpReply(reply));
    return ApiDesk::head_of(reply).status;
  };
  EXPECT_EQ(ask(R"({"prompt":"a","prompt":"b"})"), 400);
  EXPECT_EQ(ask(R"({"prompt":"a","lora":[{"name":"a","name":"b"}]})"), 400);
  EXPECT_EQ(ask(R"({"prompt":"a","lora":[]})"), 200);
}

TEST(Api_ListsOfAForm, AreWrittenAsClientsDo) {
  ApiDesk desk;
  std::ofstream(desk.scratch.path() / "a.safetensors") << "a";
  std::ofstream(desk.scratch.path() / "b.safetensors") << "b";
  AdapterShelf shelf(desk.scratch.path().string());
  ApiOptions options{.inputs = desk.folder->path() / "pictures"};
  Api api(std::move(options), *desk.maker, *desk.dispatcher, shelf, *desk.store, desk.metrics);
  const auto ask = [&](std::vector<std::pair<std::string, std::string>> more) {
    http::IncomingRequest request;
    request.method = "POST", request.path = "/v1/images/edits";
    const auto put = [&](const std::string& name, const std::string& data) {
      request.form.push_back({});
      request.form.back().name = name, request.form.back().data = data;
    };
    put("prompt", "a fox"), put("image", *from_base64(kSmallPicture));
    for (const auto& [name, data] : more) put(name, data);
    const auto reply = ApiDesk::state();
    api.handle(std::move(request), http::HttpReply(reply));
    const auto answer = ApiDesk::head_of(reply);
    if (answer.status != 200) return std::to_string(answer.status);
    const auto job = desk.dispatcher->find(Json::parse(answer.body).at("job"));
    std::string lora;
    for (const auto& one : job->requests.front().lora.value_or(std::vector<std::string>{}))
      lora += (lora.empty() ? "" : " ") + one.substr(one.rfind('/') + 1);
    return lora;
  };
  EXPECT_EQ(ask({{"lora", "a"}}), ask({{"lora", R"(["a"])"}}));
  EXPECT_EQ(ask({{"lora[]", "a"}, {"lora[]", "b"}}), ask({{"lora", R"(["a", "b"])"}}));
  EXPECT_EQ(ask({{"lora", "a"}, {"lora", "b"}}), ask({{"lora", R"(["a", "b"])"}}));
  EXPECT_EQ(ask({{"lora[][name]", "a"}, {"lora[][strength]", "0.5"}, {"lora[][name]", "b"}}),
            ask({{"lora", R"([{"name": "a", "strength": 0.5}, "b"])"}}));
  EXPECT_EQ(ask({{"lora[", "a"}}), "400");
  EXPECT_EQ(ask({{"lora", R"(["a"])"}, {"lora[][path]", "b"}}), "400");
  EXPECT_EQ(ask({{"seed", "1"}, {"seed", "2"}}), "400");
  EXPECT_EQ(ask({{"seed[]", "1"}}), "400");
}

TEST(Api_SecondsOfAVideo, AreWholeStepsOfItsModelsFrames) {
  ApiDesk desk({}, std::make_unique<VideoMaker>());
  const auto frames = [&](const Json& seconds) {
    Json body{{"prompt", "a fox"}, {"seconds", seconds}, {"output_format", "webp"}};
    body["input_reference"] = kSmallPicture;
    const auto answer = desk.ask("POST", "/v1/videos", body, {{"Content-Type", "application/json"}});
    EXPECT_EQ(answer.status, 200) << answer.body;
    const auto video = Json::parse(answer.body);
    return std::pair(video.at("num_frames").get<int>(), video.at("notes").size());
  };
  EXPECT_EQ(frames("2"), std::pair(33, size_t{1}));    // 32 of its frames, in steps of 8
  EXPECT_EQ(frames("1.2"), std::pair(17, size_t{1}));  // 19.2
  EXPECT_EQ(frames(1.0625), std::pair(17, size_t{0}));
}

}  // namespace
}  // namespace atelier::server
