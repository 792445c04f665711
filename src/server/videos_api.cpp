// OpenAI's Videos API: a video is a job; its content is there when it is done.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "server/api.h"
#include "server/json_body.h"
#include "server/upload.h"

namespace atelier::server {
namespace {

constexpr const char* kKind = "videos";
constexpr int kMostVideosListed = 100;

std::string_view status_of(const JobRecord& record) {
  switch (record.state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "in_progress";
    case JobState::kDone:
      return "completed";
    default:
      return "failed";
  }
}

// Throws ApiError (400) unless there is at most one, and it is a picture.
void check_frame(const char* name, const std::vector<std::string>& pictures) {
  if (pictures.size() > 1)
    throw ApiError(400, "unsupported_value", str(name, ": one picture is taken"), name);
  if (!pictures.empty()) decoded(name, pictures.front());
}

}  // namespace

// seconds stands for frames: the first one, and as many whole steps of the model's frames as fit
// into that time.
void Api::settle_frames(Draft& draft) const {
  auto& request = draft.row.request;
  if (!draft.seconds) return;
  if (request.num_frames)
    throw ApiError(400, "invalid_value", "seconds: give seconds or num_frames", "seconds");
  const double frames = *draft.seconds * request.fps.value_or(maker_.card().fps);
  const int step = maker_.card().frame_step;
  request.num_frames = static_cast<int>(frames / step) * step + 1;
  if (*request.num_frames > options_.caps.frames)
    throw ApiError(400, "invalid_value",
                   str("seconds: max_frames ", options_.caps.frames, ": ", *draft.seconds, " s are ",
                       *request.num_frames, " frames"),
                   "seconds");
  if (*request.num_frames != static_cast<int>(std::lround(frames)))
    draft.notes.push_back(str(*draft.seconds, " s become ", *request.num_frames, " frames: the model draws ",
                              step == 1 ? "whole ones" : str(step, "k + 1")));
}

Json Api::video_object(const JobRecord& record, double progress) const {
  const auto& request = record.requests.front();
  const double fps = request.fps.value_or(maker_.card().fps);
  const double seconds = fps > 0 ? request.num_frames.value_or(1) / fps : 0;
  const auto time = [](double at) { return at > 0 ? Json(static_cast<int64_t>(at)) : Json(nullptr); };
  if (record.state == JobState::kDone) progress = 1;
  Json error = nullptr;
  if (!record.error_code.empty()) error = {{"code", record.error_code}, {"message", record.error_message}};
  return {{"id", record.id},
          {"object", "video"},
          {"model", maker_.card().id},
          {"status", status_of(record)},
          {"progress", static_cast<int>(std::floor(progress * 100))},
          {"created_at", static_cast<int64_t>(record.created)},
          {"completed_at", time(record.state == JobState::kDone ? record.finished : 0)},
          {"expires_at", nullptr},
          {"prompt", request.prompt},
          {"remixed_from_video_id", nullptr},
          {"seconds", str(std::round(seconds * 100) / 100)},
          {"size", str(request.width.value_or(0), "x", request.height.value_or(0))},
          {"num_frames", request.num_frames.value_or(1)},
          {"fps", fps},
          {"output_format", record.format},
          {"seed", request.seed.value_or(0)},
          {"notes", record.notes},
          {"error", std::move(error)}};
}

void Api::create_video(ApiCall& call) {
  if (!maker_.card().is_video)
    throw ApiError(400, "wrong_model", str(maker_.card().id, " draws pictures: POST /v1/images/generations"),
                   "model");
  std::string hash = sha256(call.request.body);
  for (const auto& part : call.request.form) hash = sha256(str(hash, part.name, "\n", part.data));
  auto upload = take_upload(call.request, video_fields_);
  if (!upload.masks.empty()) throw ApiError(400, "unsupported_parameter", "mask: videos take none", "mask");
  check_frame("input_reference", upload.images);
  check_frame("last_image", upload.last_images);
  auto draft = video_fields_.read(upload.fields);
  draft.is_async = true;
  if (draft.format.empty()) draft.format = maker_.card().video_format;
  settle_frames(draft);
  JobInputs inputs(store_, options_.inputs, new_id("video_"));
  auto& request = draft.row.request;
  if (!upload.images.empty()) request.image = inputs.keep("image", upload.images.front());
  if (!upload.last_images.empty()) request.last_image = inputs.keep("last_image", upload.last_images.front());
  draw(call, kKind, draft, hash, inputs);
}

JobRecord Api::video_of(const ApiCall& call) const {
  auto record = dispatcher_.find(call.values.at("id"));
  if (!record || record->owner != call.owner || record->kind != kKind)
    throw ApiError(404, "video_not_found", "there is no such video");
  return std::move(*record);
}

void Api::list_videos(ApiCall& call) {
  JobQuery wanted{.owner = call.owner, .kind = kKind, .most = 20};
  for (const auto& [name, value] : call.query()) {
    const auto number = to_integer(value);
    if (name == "limit" && number && *number >= 0 && *number <= kMostVideosListed) {
      wanted.most = static_cast<int>(*number);
    } else if (name == "after") {
      wanted.before = value;
    } else if (name != "order" || value != "desc") {
      throw ApiError(400, "invalid_value",
                     str(name, ": limit (0 to ", kMostVideosListed,
                         "), after (a video's id) and order desc are known here"),
                     name);
    }
  }
  Json data = Json::array();
  const auto page = dispatcher_.list(std::move(wanted));
  for (const auto& record : page.records)
    data.push_back(video_object(record, dispatcher_.progress(record.id)));
  const Json first = data.empty() ? Json(nullptr) : data.front().at("id"),
             last = data.empty() ? Json(nullptr) : data.back().at("id");
  call.json(200, {{"object", "list"},
                  {"data", std::move(data)},
                  {"first_id", first},
                  {"last_id", last},
                  {"has_more", page.has_more}});
}

void Api::show_video(ApiCall& call) {
  const auto record = video_of(call);
  call.json(200, video_object(record, dispatcher_.progress(record.id)));
}

void Api::video_content(ApiCall& call) {
  const auto record = video_of(call);
  for (const auto& [name, value] : call.query()) {
    if (name != "variant" || value != "video")
      throw ApiError(400, "invalid_value", str(name, ": variant video is known here"), name);
  }
  if (record.state != JobState::kDone)
    throw ApiError(409, "video_not_ready", str("the video is ", status_of(record)));
  send_picture(call, record, "0");
}

void Api::delete_video(ApiCall& call) {
  const auto record = video_of(call);
  dispatcher_.forget(record.id);
  call.json(200, {{"id", record.id}, {"object", "video.deleted"}, {"deleted", true}});
}

}  // namespace atelier::server
