// The progress of jobs: of one as server-sent events, of all of a key's over a WebSocket.
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "server/api.h"
#include "server/base64.h"
#include "server/json_body.h"

namespace atelier::server {
namespace {

std::string event_name(const JobEvent& e) {
  switch (e.kind) {
    case JobEvent::kAccepted:
      return "accepted";
    case JobEvent::kStarted:
      return "started";
    case JobEvent::kStep:
      return "step";
    case JobEvent::kPreview:
      return "preview";
    case JobEvent::kNote:
      return "note";
    case JobEvent::kPicture:
      return "picture";
    case JobEvent::kFinished:
      return "finished";
    case JobEvent::kInterrupted:
      return "interrupted";
  }
  return "";
}

Json shown_event(const JobEvent& e) {
  Json out{{"type", event_name(e)}, {"job", e.record.id}, {"status", state_name(e.record.state)}};
  if (e.seconds_left) out["seconds_left"] = std::round(*e.seconds_left * 1000) / 1000;
  if (e.kind == JobEvent::kStep) out["step"] = e.step, out["steps"] = e.steps;
  if (e.kind == JobEvent::kNote) out["note"] = e.note;
  if (e.kind == JobEvent::kPreview) {
    out["step"] = e.step;
    out["index"] = e.picture;
    out["media_type"] = str("image/", e.record.format);
    out["b64_json"] = to_base64(*e.pictures.front());
  }
  if (e.kind == JobEvent::kPicture) {
    out["index"] = e.picture;
    out["href"] = str("/v1/jobs/", e.record.id, "/images/", e.picture);
  }
  if (e.kind == JobEvent::kFinished) out["result"] = shown_job(e.record);
  return out;
}

}  // namespace

void Api::job_events(ApiCall& call) {
  const auto record = job_of(call);
  call.begin_stream();
  // what it is now, so that nobody who comes late waits for a word
  if (!is_final(record.state))
    call.reply.write(
        sse_event("", {{"type", "state"}, {"job", record.id}, {"status", state_name(record.state)}}));
  const auto number = dispatcher_.listen(record.id, [call](const JobEvent& e) {
    call.reply.write(sse_event("", shown_event(e)));
    if (e.kind == JobEvent::kFinished || e.kind == JobEvent::kInterrupted) call.end_stream();
  });
  if (number == 0) return call.end_stream();
  call.reply.on_gone([this, number] { dispatcher_.unlisten(number); });
}

// Of all jobs of the key, from here on; it begins with a word, after which nothing is missed.
void Api::all_events(ApiCall& call) {
  call.begin_stream();
  call.reply.write(sse_event("", {{"type", "connected"}}));
  const auto number = dispatcher_.listen_all([call](const JobEvent& e) {
    if (e.record.owner == call.owner) call.reply.write(sse_event("", shown_event(e)));
  });
  call.reply.on_gone([this, number] { dispatcher_.unlisten(number); });
}

// The client is told of all jobs of its key; it may say {"cancel": "job_..."}.
void Api::open(http::IncomingRequest request, http::WebSocket socket) {
  const std::string owner = owner_of(request);
  const auto number = dispatcher_.listen_all([socket, owner](const JobEvent& e) {
    if (e.record.owner == owner)
      socket.write(shown_event(e).dump(-1, ' ', false, Json::error_handler_t::replace));
  });
  socket.on_gone([this, number] { dispatcher_.unlisten(number); });
  socket.on_message([this, socket, owner](const std::string& text) {
    const auto answer = [&](const Json& body) {
      socket.write(body.dump(-1, ' ', false, Json::error_handler_t::replace));
    };
    try {
      const Json message = parsed_json(text);
      if (!message.is_object() || message.size() != 1 || !message.contains("cancel") ||
          !message["cancel"].is_string())
        throw ApiError(400, "invalid_value", R"(a message is {"cancel": JOB})");
      const std::string id = message["cancel"];
      const auto record = dispatcher_.find(id);
      if (!record || record->owner != owner) throw ApiError(404, "job_not_found", "there is no such job");
      answer({{"type", "cancel"}, {"job", id}, {"accepted", dispatcher_.cancel(id)}});
    } catch (const ApiError& e) {
      answer(error_object(e.status, e.what(), e.code, e.param));
    } catch (const std::exception& e) {
      log::error(str("a message of a WebSocket could not be answered: ", e.what()));
      answer(error_object(500, "the server failed; its log says why", "internal_error"));
    }
  });
}

}  // namespace atelier::server
