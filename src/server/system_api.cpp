// What the server says of itself.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/quote.h"
#include "base/version.h"
#include "media/image.h"
#include "server/api.h"
#include "server/model_fields.h"
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

namespace {

std::string grey_picture() {
  return media::encode(media::Image{64, 64, std::vector<uint8_t>(size_t{3} * 64 * 64, 128)},
                       media::Format::kPng);
}

// Of the first size that the model takes. Throws Error where it takes none.
std::vector<request::Request> smallest(const RequestMaker& maker, request::PromptRow row,
                                       const std::string& format) {
  for (const int size : {64, 128, 256, 512}) {
    row.request.width = row.request.height = size;
    try {
      return maker.make(row, format).requests;
    } catch (const Error&) {
      continue;
    }
  }
  row.request.width = row.request.height = 1024;
  return maker.make(row, format).requests;
}

}  // namespace

// The smallest picture that the model draws, in one step, before everything that waits. Of a video as few
// frames as can be, and a model that must be shown pictures is shown grey ones.
void Api::try_generation(ApiCall& call) {
  const auto& card = maker_.card();
  JobInputs inputs(store_, options_.inputs, new_id("job_"));
  JobRecord record{.id = inputs.id(), .owner = call.owner, .kind = "health", .priority = 100};
  record.format = card.needs_last_image ? "webp" : "png";
  record.created = unix_time();
  record.timeout = 60;
  record.request_id = call.id;
  request::PromptRow row;
  row.request.prompt = "a health check";
  row.request.num_inference_steps = 1;
  row.request.seed = 0;
  if (card.is_video) row.request.num_frames = card.needs_last_image ? 1 + card.frame_step : 1;
  const Listener answer = [call](const JobEvent& e) {
    if (e.kind != JobEvent::kFinished && e.kind != JobEvent::kInterrupted) return;
    const bool is_good = e.record.state == JobState::kDone && e.kind == JobEvent::kFinished;
    call.json(is_good ? 200 : 503,
              {{"status", is_good ? "ok" : "failed"}, {"seconds", unix_time() - e.record.created}});
  };
  if (card.needs_image) row.request.image = inputs.keep("image", grey_picture());
  if (card.needs_last_image) row.request.last_image = row.request.image;
  record.requests = smallest(maker_, row, record.format);
  record.requests.front().name = str(inputs.id(), "_0.", record.format);
  dispatcher_.submit(std::move(record), answer, Acceptance::kAtOnce);
  inputs.accepted();
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
  const auto& most = options_.most;
  std::call_once(is_tried_, [&] {
    verdicts_ = model_verdicts(card.is_video ? video_fields_ : generation_fields_, maker_);
  });
  const auto told = [this](const ApiFields& fields) {
    return with_verdicts(fields.capabilities(), verdicts_);
  };
  call.json(200, {{"object", "capabilities"},
                  {"model", card.id},
                  {"family", card.family},
                  {"tier", card.tier},
                  {"attention_dtype", card.attention_dtype},
                  {"layout", card.layout},
                  {"previews", true},
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
                    {"max_frames", caps.frames},
                    {"max_body_bytes", options_.max_body_bytes},
                    {"max_queue", most.max_queue},
                    {"max_per_key", most.max_per_owner},
                    {"request_timeout", options_.request_timeout}}},
                  {"adapters", adapters_.names()},
                  {"generations", options_.mode == "edit" ? Json(nullptr) : told(generation_fields_)},
                  {"videos", card.is_video ? told(video_fields_) : Json(nullptr)},
                  {"edits", options_.mode == "t2i" ? Json(nullptr) : told(edit_fields_)}});
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
  out["attention_dtype"] = card.attention_dtype;
  call.json(200, out);
}

void Api::adapters(ApiCall& call) {
  Json data = Json::array();
  for (const auto& name : adapters_.names()) data.push_back({{"id", name}, {"object", "adapter"}});
  call.json(200, {{"object", "list"}, {"data", std::move(data)}});
}

void Api::reload_adapters(ApiCall& call) {
  try {
    adapters_.reload();
  } catch (const Error& e) {
    log::error(str("request=", call.id, " ", e.what()));
    throw ApiError(503, "adapters_unreadable", "the folder of adapters cannot be read; the log says why");
  }
  adapters(call);
}

}  // namespace atelier::server
