// What clients write and what they are told.
#include <fstream>
#include <map>
#include <set>

#include "server/api_desk_for_test.h"
#include "server/base64.h"

namespace atelier::server {
namespace {

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

// Knows no third prompt, no sampler but one, and no guidance.
class NarrowMaker : public StubMaker {
 public:
  MadeRequests make(request::PromptRow row, const std::string& format) const override {
    const auto& r = row.request;
    if (r.prompt_3) throw Error(Kind::kUsage, "--prompt_3 was given; there are two text encoders");
    if (r.sampler.value_or("euler") != "euler") throw Error(Kind::kUsage, "there is euler alone");
    if (r.eta) throw Error(Kind::kUsage, "eta belongs to another sampler");
    if (r.cache_threshold && !r.cache_type) throw Error(Kind::kUsage, "it needs a cache_type");
    const bool is_idle = r.guidance_scale.has_value();
    auto made = StubMaker::make(std::move(row), format);
    if (is_idle) made.notes.emplace_back("guidance_scale has no effect: this model takes no guidance");
    return made;
  }
};

TEST(Api_WhatTheModelRefuses, IsNamedAsAParameter) {
  ApiDesk desk({}, std::make_unique<NarrowMaker>());
  const auto param = [&](Json body) {
    body["prompt"] = "a fox";
    const auto answer = desk.ask("POST", kGenerations, body);
    EXPECT_EQ(answer.status, 400);
    return Json::parse(answer.body).at("error").at("param");
  };
  EXPECT_EQ(param({{"prompt_3", "a"}}), "prompt_3");
  EXPECT_EQ(param({{"eta", 0.5}}), "eta");
  EXPECT_EQ(param({{"sampler", "heun"}}), nullptr) << "its message names none";
}

TEST(Api_Capabilities, AreThoseOfTheModel) {
  ApiDesk desk({}, std::make_unique<NarrowMaker>());
  const Json all = Json::parse(desk.ask("GET", "/v1/capabilities").body);
  for (const char* list : {"generations", "edits"}) {
    std::map<std::string, Json> fields;
    for (const Json& field : all.at(list)) {
      EXPECT_FALSE(field.contains("is_of_request"));
      fields[field.at("name")] = field;
    }
    EXPECT_EQ(fields["prompt_3"].at("use"), "refused");
    EXPECT_EQ(fields["prompt_3"].at("note"), "prompt_3 was given; there are two text encoders");
    EXPECT_EQ(fields["eta"].at("use"), "refused");
    EXPECT_EQ(fields["guidance_scale"].at("use"), "no effect");
    EXPECT_EQ(fields["sampler"].at("schema").at("enum"), Json::array({"euler"}));
    for (const char* name :
         {"prompt", "prompt_2", "cache_threshold", "sigmas", "width", "sampler", "lora", "n"})
      EXPECT_EQ(fields[name].at("use"), "honoured") << name;
  }
  for (const char* limit : {"max_frames", "max_queue", "max_per_key", "request_timeout"})
    EXPECT_TRUE(all.at("limits").contains(limit)) << limit;
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
  const std::string both =
      ask({{"lora", R"([{"name": "a", "strength": 0.5}, {"name": "b", "strength": 1}])"}});
  EXPECT_EQ(ask({{"lora[][name]", "a"},
                 {"lora[][strength]", "0.5"},
                 {"lora[][name]", "b"},
                 {"lora[][strength]", "1"}}),
            both);
  EXPECT_EQ(ask({{"lora[][name]", "a"},
                 {"lora[][name]", "b"},
                 {"lora[][strength]", "0.5"},
                 {"lora[][strength]", "1"}}),
            both);
  EXPECT_EQ(ask({{"lora[][name]", "a"}, {"lora[][name]", "b"}, {"lora[][strength]", "1"}}), "400")
      << "nobody knows whose strength it is";
  EXPECT_EQ(ask({{"lora[", "a"}}), "400");
  EXPECT_EQ(ask({{"lora", R"(["a"])"}, {"lora[][path]", "b"}}), "400");
  EXPECT_EQ(ask({{"seed", "1"}, {"seed", "2"}}), "400");
  EXPECT_EQ(ask({{"seed[]", "1"}}), "400");
}

}  // namespace
}  // namespace atelier::server
