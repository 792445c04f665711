// What the server says of itself.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "base/version.h"
#include "server/api.h"
#include "server/openapi.h"
#include "server/page.h"

namespace atelier::server {

void Api::page(ApiCall& call) {
  call.send({.content_type = "text/html; charset=utf-8",
             .body = std::string(page_html()),
             .headers = {
                 {"Content-Security-Policy",
                  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' "
                  "blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                  "frame-ancestors 'none'"},
                 {"Referrer-Policy", "no-referrer"}}});
}

void Api::health(ApiCall& call) {
  const bool is_ready = dispatcher_.is_ready();
  call.json(200, {{"status", is_ready                    ? "ok"
                             : dispatcher_.is_draining() ? "draining"
                                                         : "loading"},
                  {"mode", options_.mode.empty() ? "t2i, edit" : options_.mode},
                  {"model", maker_.card().id},
                  {"backend_ready", is_ready}});
}

void Api::live(ApiCall& call) {
  call.json(200, {{"status", "ok"}});
}

void Api::ready(ApiCall& call) {
  const bool is_ready = dispatcher_.is_ready();
  call.json(is_ready ? 200 : 503, {{"status", is_ready ? "ok" : "not ready"}});
}

// The smallest picture that the model draws, in one step, before everything that waits.
void Api::try_generation(ApiCall& call) {
  Draft draft;
  draft.row.request.prompt = "a health check";
  draft.row.request.num_inference_steps = 1;
  draft.row.request.seed = 0;
  draft.priority = 100;
  JobRecord record{
      .id = new_id("job_"), .owner = call.owner, .kind = "health", .format = "png", .priority = 100};
  record.created = unix_time();
  record.timeout = 60;
  record.request_id = call.id;
  for (const int size : {64, 128, 256, 512, 1024}) {
    draft.row.request.width = draft.row.request.height = size;
    try {
      record.requests = maker_.make(draft.row, "png");
      break;
    } catch (const Error&) {
      if (size == 1024) throw;
    }
  }
  record.requests.front().name = str(record.id, "_0.png");
  dispatcher_.submit(
      std::move(record),
      [call](const JobEvent& e) {
        if (e.kind != JobEvent::kFinished && e.kind != JobEvent::kInterrupted) return;
        const bool is_good = e.record.state == JobState::kDone && e.kind == JobEvent::kFinished;
        call.json(is_good ? 200 : 503,
                  {{"status", is_good ? "ok" : "failed"}, {"seconds", unix_time() - e.record.created}});
      },
      Acceptance::kAtOnce);
}

void Api::metrics(ApiCall& call) {
  call.send({.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_.text()});
}

void Api::openapi(ApiCall& call) {
  call.json(200, openapi_document(router_,
                                  {{"Generation", generation_fields_.schema()},
                                   {"Edit", edit_fields_.schema()},
                                   {"VideoRequest", video_fields_.schema()}},
                                  kVersion));
}

void Api::capabilities(ApiCall& call) {
  const auto& card = maker_.card();
  const auto& caps = options_.caps;
  call.json(200,
            {{"object", "capabilities"},
             {"model", card.id},
             {"family", card.family},
             {"tier", card.tier},
             {"layout", card.layout},
             {"previews", card.has_previews},
             {"defaults",
              {{"size", str(card.width, "x", card.height)},
               {"num_inference_steps", card.steps},
               {"guidance_scale", card.guidance}}},
             {"limits",
              {{"max_pixels", caps.pixels},
               {"max_steps", caps.steps},
               {"max_n", caps.n},
               {"max_prompt_bytes", caps.prompt_bytes},
               {"max_adapters", caps.adapters},
               {"max_body_bytes", options_.max_body_bytes}}},
             {"adapters", adapters_.names()},
             {"generations", options_.mode == "edit" ? Json(nullptr) : generation_fields_.capabilities()},
             {"videos", maker_.card().is_video ? video_fields_.capabilities() : Json(nullptr)},
             {"edits", options_.mode == "t2i" ? Json(nullptr) : edit_fields_.capabilities()}});
}

namespace {

Json model_object(const ModelCard& card) {
  return {{"id", card.id}, {"object", "model"}, {"created", 0}, {"owned_by", "atelier"}};
}

}  // namespace

void Api::models(ApiCall& call) {
  call.json(200, {{"object", "list"}, {"data", Json::array({model_object(maker_.card())})}});
}

void Api::model(ApiCall& call) {
  const auto& card = maker_.card();
  if (call.values.at("id") != card.id)
    throw ApiError(
        404, "model_not_found",
        str("the model ", in_quotes(call.values.at("id")), " is not loaded here; ", card.id, " is"), "model");
  call.json(200, model_object(card));
}

void Api::status(ApiCall& call) {
  const auto& card = maker_.card();
  Json out = dispatcher_.status();
  out["model"] = card.id;
  out["layout"] = card.layout;
  out["device"] = card.device;
  out["dtype"] = card.dtype;
  out["tier"] = card.tier;
  call.json(200, out);
}

void Api::adapters(ApiCall& call) {
  Json data = Json::array();
  for (const auto& name : adapters_.names()) data.push_back({{"id", name}, {"object", "adapter"}});
  call.json(200, {{"object", "list"}, {"data", std::move(data)}});
}

void Api::reload_adapters(ApiCall& call) {
  adapters_.reload();
  adapters(call);
}

}  // namespace atelier::server
