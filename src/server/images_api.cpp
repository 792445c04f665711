// Requests for pictures: from a body to a job, from a job to an answer.
#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/quote.h"
#include "request/adapters.h"
#include "request/file_inputs.h"
#include "server/api.h"
#include "server/base64.h"
#include "server/json_body.h"
#include "server/model_fields.h"

namespace atelier::server {
namespace {

// Paths of this machine are nobody's business.
std::string replaced(std::string message, const std::string& path, const std::string& by) {
  for (size_t at = path.empty() ? std::string::npos : message.find(path); at != std::string::npos;
       at = message.find(path, at + by.size()))
    message.replace(at, path.size(), by);
  return message;
}

}  // namespace

void Api::generations(ApiCall& call) {
  if (options_.mode == "edit")
    throw ApiError(400, "wrong_mode", "this server runs with --mode edit: POST /v1/images/edits");
  const auto draft = generation_fields_.read(parsed_json(call.request.body));
  JobInputs inputs(store_, options_.inputs, new_id("job_"));  // none
  draw(call, "images.generations", draft, sha256(call.request.body), inputs);
}

// What the server does for everybody can be asked for, but not changed by one request.
void Api::settle_hints(const Draft& draft) const {
  const auto& card = maker_.card();
  const size_t slash = card.id.rfind('/');
  const bool is_model = draft.model.empty() || draft.model == card.id ||
                        (slash != std::string::npos && draft.model == card.id.substr(slash + 1));
  if (!is_model)
    throw ApiError(404, "model_not_found",
                   str("the model ", in_quotes(draft.model), " is not loaded here; ", card.id, " is"),
                   "model");
  if (!draft.tier.empty() && draft.tier != card.tier)
    throw ApiError(400, "unsupported_value",
                   str("tier: ", draft.tier, " is not loaded here; ", card.tier, " is"), "tier");
  if (!draft.attention_dtype.empty() && draft.attention_dtype != card.attention_dtype)
    throw ApiError(
        400, "unsupported_value",
        str("attention_dtype: ", draft.attention_dtype, " is not loaded here; ", card.attention_dtype, " is"),
        "attention_dtype");
  if (!draft.layout.empty() && draft.layout != "auto" && draft.layout != card.layout)
    throw ApiError(400, "unsupported_value",
                   str("layout: ", in_quotes(draft.layout), " is not what runs here; ", card.layout, " is"),
                   "layout");
}

// The field that a message of the engine begins with, or that says the size it is about; empty: none.
std::string Api::field_named_by(const std::string& message) const {
  const std::string word = message.substr(0, message.find_first_of(" :"));
  for (const auto* fields : {&generation_fields_, &edit_fields_, &video_fields_}) {
    if (fields->knows(word)) return word;
  }
  return message.find("width and height must") != std::string::npos ? "size" : "";
}

MadeRequests Api::requests_of(const Draft& draft) const {
  request::PromptRow row = draft.row;
  // of a model of videos one frame is a picture
  if (maker_.card().is_video && !draft.is_video) row.request.num_frames = 1;
  std::string folder;
  if (!draft.adapters.empty()) {
    row.request.lora.emplace();
    for (const auto& wish : draft.adapters) {
      const auto file = adapters_.file(wish.name);
      folder = file.parent_path().string() + "/";
      row.request.lora->push_back(request::to_string(
          {.path = file.string(), .strength = wish.strength.value_or(1), .expert = wish.expert}));
    }
  }
  const auto for_client = [&](std::string message) {
    message = replaced(std::move(message), folder, "");
    for (const auto& input : request::kFileInputs)
      message = replaced(std::move(message), (row.request.*input.file).value_or(""), std::string(input.name));
    return without_dashes(message);
  };
  try {
    auto made = maker_.make(row, draft.format);
    for (auto& note : made.notes) note = for_client(std::move(note));
    made.notes.insert(made.notes.end(), draft.notes.begin(), draft.notes.end());
    return made;
  } catch (const Error& e) {
    if (e.kind() != Kind::kUsage && e.kind() != Kind::kCapacity && e.kind() != Kind::kCheckpoint) throw;
    auto message = for_client(e.what());
    if (draft.is_video && message.starts_with("image ")) message.replace(0, 5, "input_reference");
    throw ApiError(400, e.kind() == Kind::kCapacity ? "does_not_fit" : "invalid_value", message,
                   field_named_by(message));
  }
}

void Api::draw(ApiCall& call, const std::string& kind, const Draft& draft, const std::string& body_hash,
               JobInputs& inputs) {
  settle_hints(draft);
  JobRecord record{.id = inputs.id(), .owner = call.owner, .kind = kind, .format = draft.format};
  record.idempotency = call.request.header("idempotency-key").value_or("");
  if (record.idempotency.size() > 255)
    throw ApiError(400, "invalid_value", "Idempotency-Key: at most 255 letters are expected");
  record.body_hash = sha256(kind + "\n" + body_hash);
  record.priority = draft.priority;
  record.created = unix_time();
  record.timeout = std::min(draft.timeout.value_or(options_.request_timeout), options_.request_timeout);
  record.request_id = call.id;
  auto made = requests_of(draft);
  record.requests = std::move(made.requests);
  record.notes = std::move(made.notes);
  for (auto& request : record.requests) request.partial_images = draft.partial_images;
  const auto& first = record.requests.front();
  const int64_t pixels = int64_t{*first.width} * *first.height;
  if (pixels > options_.caps.pixels)
    throw ApiError(
        400, "invalid_value",
        str("max_pixels ", options_.caps.pixels, ": ", *first.width, "x", *first.height, " has ", pixels),
        "size");
  if (*first.num_inference_steps > options_.caps.steps)
    throw ApiError(
        400, "invalid_value",
        str("max_steps ", options_.caps.steps, ": ", *first.num_inference_steps, " were asked for"),
        "num_inference_steps");
  for (size_t i = 0; i < record.requests.size(); ++i) {
    auto& request = record.requests[i];
    request.name = str(record.id, "_", i, ".", draft.format == "jpeg" ? "jpg" : draft.format);
    request.index = static_cast<int64_t>(i);
  }
  follow(call, kind, draft, std::move(record), inputs);
}

Json Api::images_answer(const Draft& draft, const JobRecord& record,
                        const std::vector<Bytes>& pictures) const {
  Json data = Json::array(), seeds = Json::array();
  for (size_t i = 0; i < pictures.size(); ++i) {
    if (!pictures[i]) throw ApiError(500, "picture_gone", "the picture is not kept any more");
    const bool is_url = draft.response_format == "url";
    data.push_back({{"b64_json", is_url ? Json(nullptr) : Json(to_base64(*pictures[i]))},
                    {"url", is_url ? Json(signed_url(record, i)) : Json(nullptr)},
                    {"revised_prompt", nullptr}});
    seeds.push_back(record.pictures[i].seed);
  }
  const auto& first = record.requests.front();
  return {{"created", static_cast<int64_t>(record.created)},
          {"data", std::move(data)},
          {"background", "opaque"},
          {"output_format", record.format},
          {"quality", nullptr},
          {"size", str(first.width.value_or(0), "x", first.height.value_or(0))},
          {"usage", nullptr},
          {"job", record.id},
          {"seeds", std::move(seeds)},
          {"notes", record.notes},
          {"seconds", std::max(0.0, record.finished - record.created)}};
}

namespace {

// What the client of a job that gave no picture is told.
ApiError failure_of(const JobRecord& record) {
  return {record.error_status ? record.error_status : 500, record.error_code,
          str(record.error_message, " (", record.id, ")")};
}

ApiError interruption_of(const JobRecord& record) {
  ApiError error(503, "interrupted",
                 str("the server is ending; the job goes on when it is back: GET /v1/jobs/", record.id));
  error.retry_after_s = 5;
  return error;
}

}  // namespace

// A job that is drawn later.
void Api::answer_accepted(const ApiCall& call, const JobRecord& record) const {
  if (record.kind == "videos") return call.json(200, video_object(record, 0));
  call.json(202, shown_job(record));
}

void Api::follow(ApiCall& call, const std::string& kind, const Draft& draft, JobRecord record,
                 JobInputs& inputs) {
  call.request.body = {};  // listeners keep the call until the job is done
  call.request.form = {};
  const std::string id = record.id;
  const bool is_named = !record.idempotency.empty();
  const Listener whole = [this, call, draft](const JobEvent& e) {
    const auto answer = [&](const ApiError& error) { call.fail(std::make_exception_ptr(error)); };
    if (draft.is_async && e.kind != JobEvent::kInterrupted) {
      if (e.record.state != JobState::kFailed || e.kind != JobEvent::kFinished)
        return answer_accepted(call, e.record);
    }
    if (e.kind == JobEvent::kInterrupted) return answer(interruption_of(e.record));
    if (e.kind != JobEvent::kFinished) return;
    if (e.record.state != JobState::kDone) return answer(failure_of(e.record));
    try {
      call.json(200, images_answer(draft, e.record, e.pictures));
    } catch (const ApiError& error) {
      answer(error);
    }
  };
  const std::string prefix = kind == "images.edits" ? "image_edit" : "image_generation";
  // it begins when the job is taken, or with its first event: a refusal has a status of its own
  const auto begin = [call, once = std::make_shared<std::once_flag>()] {
    std::call_once(*once, [&] { call.begin_stream(); });
  };
  const Listener stream = [this, call, draft, prefix, begin](const JobEvent& e) {
    begin();
    stream_event(call, draft, prefix, e);
  };
  const Listener& listener = draft.is_stream ? stream : whole;
  const bool is_awaited = !draft.is_async && !is_named;
  const auto known =
      dispatcher_.submit(std::move(record), listener, is_awaited ? Acceptance::kAtOnce : Acceptance::kKept);
  if (known == id) {
    inputs.accepted();
    // now that it can be cancelled: a client that has left already is noticed at once
    if (is_awaited && !options_.keep_on_disconnect)
      call.reply.on_gone([this, id] { dispatcher_.cancel(id); });
  } else {
    follow_earlier(call, draft, known, listener);
  }
  if (draft.is_stream) begin();
}

// The request is one that the client has made before.
void Api::follow_earlier(const ApiCall& call, const Draft& draft, const std::string& earlier,
                         const Listener& listener) {
  const ApiError gone(409, "being_forgotten",
                      "the job of this Idempotency-Key is being forgotten: try again");
  if (!draft.is_async) {
    if (dispatcher_.listen(earlier, listener) == 0) throw gone;
    return;
  }
  const auto record = dispatcher_.find(earlier);
  if (!record) throw gone;
  answer_accepted(call, *record);
}

void Api::stream_event(const ApiCall& call, const Draft& draft, const std::string& prefix,
                       const JobEvent& e) const {
  const auto put = [&](const std::string& type, Json data) {
    data["type"] = type;
    call.reply.write(sse_event(type, data));
  };
  const auto end = [&](const ApiError& error) {
    call.reply.write(sse_event("error", error_object(error.status, error.what(), error.code)));
    call.end_stream();
  };
  if (e.kind == JobEvent::kStep)
    put(prefix + ".progress", {{"step", e.step},
                               {"steps", e.steps},
                               {"seconds_left", e.seconds_left ? Json(*e.seconds_left) : Json(nullptr)},
                               {"job", e.record.id}});
  const auto& first = e.record.requests.front();
  const auto about = [&](const Bytes& bytes, int picture) {
    return Json{{"b64_json", to_base64(*bytes)},
                {"created_at", static_cast<int64_t>(e.record.created)},
                {"size", str(first.width.value_or(0), "x", first.height.value_or(0))},
                {"quality", "auto"},
                {"background", "opaque"},
                {"output_format", draft.format},
                {"job", e.record.id},
                {"index", picture}};
  };
  if (e.kind == JobEvent::kPreview) {
    Json data = about(e.pictures.front(), e.picture);
    data["partial_image_index"] = request::preview_due(e.step, e.steps, draft.partial_images).value_or(0);
    data["step"] = e.step;
    put(prefix + ".partial_image", std::move(data));
  }
  if (e.kind == JobEvent::kInterrupted) return end(interruption_of(e.record));
  if (e.kind != JobEvent::kFinished) return;
  if (e.record.state != JobState::kDone) return end(failure_of(e.record));
  for (size_t i = 0; i < e.pictures.size(); ++i) {
    if (!e.pictures[i]) return end(ApiError(500, "picture_gone", "the picture is not kept any more"));
    Json data = about(e.pictures[i], static_cast<int>(i));
    data["usage"] = nullptr;
    data["seed"] = e.record.pictures[i].seed;
    data["notes"] = e.record.notes;
    put(prefix + ".completed", std::move(data));
  }
  call.end_stream();
}

}  // namespace atelier::server
