// The API over a queue whose engine draws nothing: clients that leave at the wrong moment, stores that fail.
#include "server/api_desk_for_test.h"

namespace atelier::server {
namespace {

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
