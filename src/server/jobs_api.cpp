// Jobs: lists, one of them, its pictures.
#include <nlohmann/json.hpp>

#include "base/constant_time.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/text.h"
#include "server/api.h"

namespace atelier::server {
namespace {

constexpr int kMostJobsListed = 200;
constexpr int kUrlLifetime = 3600;  // s

}  // namespace

// Jobs of other keys are as if they were not there.
JobRecord Api::job_of(const ApiCall& call) const {
  auto record = dispatcher_.find(call.values.at("id"));
  if (!record || record->owner != call.owner) throw ApiError(404, "job_not_found", "there is no such job");
  return std::move(*record);
}

void Api::list_jobs(ApiCall& call) {
  const auto query = call.query();
  JobQuery wanted{.owner = call.owner};
  for (const auto& [name, value] : query) {
    const auto number = to_integer(value);
    if (name == "limit" && number && *number >= 1 && *number <= kMostJobsListed) {
      wanted.most = static_cast<int>(*number);
    } else if (name == "before" && !value.empty()) {
      wanted.before = value;
    } else {
      throw ApiError(400, "invalid_value",
                     str(name, ": limit (1 to ", kMostJobsListed, ") and before (a job's id) are known here"),
                     name);
    }
  }
  Json data = Json::array();
  const auto page = dispatcher_.list(std::move(wanted));
  for (const auto& record : page.records) data.push_back(shown_job(record));
  call.json(200, {{"object", "list"}, {"data", std::move(data)}, {"has_more", page.has_more}});
}

void Api::show_job(ApiCall& call) {
  call.json(200, shown_job(job_of(call)));
}

void Api::cancel_job(ApiCall& call) {
  const auto record = job_of(call);
  if (is_final(record.state) || !dispatcher_.cancel(record.id))
    throw ApiError(409, "job_finished", str("the job is ", state_name(record.state), " already"));
  // the answer comes when it is so
  const bool is_there = dispatcher_.listen(record.id, [call](const JobEvent& e) {
    if (e.kind == JobEvent::kFinished || e.kind == JobEvent::kInterrupted)
      call.json(200, shown_job(e.record));
  }) != 0;
  if (!is_there) throw ApiError(404, "job_not_found", "there is no such job");
}

void Api::delete_job(ApiCall& call) {
  const auto record = job_of(call);
  if (!is_final(record.state)) return cancel_job(call);
  dispatcher_.forget(record.id);
  call.json(200, {{"id", record.id}, {"object", "job.deleted"}, {"deleted", true}});
}

void Api::send_picture(ApiCall& call, const JobRecord& record, const std::string& index) {
  const auto number = to_unsigned(index);
  const auto bytes = number ? dispatcher_.picture(record, static_cast<size_t>(*number)) : std::nullopt;
  if (!bytes) throw ApiError(404, "picture_not_found", "there is no such picture");
  call.send({.content_type = str(record.format == "mp4" ? "video/" : "image/", record.format),
             .body = *bytes,
             .headers = {{"Cache-Control", "private, max-age=3600"}}});
}

void Api::job_image(ApiCall& call) {
  send_picture(call, job_of(call), call.values.at("index"));
}

std::string Api::signed_url(const JobRecord& record, size_t index) const {
  const auto expires = static_cast<int64_t>(unix_time()) + kUrlLifetime;
  const auto signature = hmac_sha256(signing_key_, str(record.id, "/", index, "/", expires));
  return str(options_.public_url, "/v1/files/", record.id, "/", index, "?expires=", expires,
             "&signature=", signature);
}

void Api::signed_image(ApiCall& call) {
  const auto query = call.query();
  const auto value = [&](const char* name) {
    const auto at = query.find(name);
    return at == query.end() ? std::string() : at->second;
  };
  const std::string id = call.values.at("id"), index = call.values.at("index");
  const auto expires = to_integer(value("expires"));
  const auto wanted = hmac_sha256(signing_key_, str(id, "/", index, "/", expires.value_or(0)));
  if (options_.public_url.empty() || !expires || !is_equal_in_constant_time(wanted, value("signature")) ||
      static_cast<double>(*expires) < unix_time())
    throw ApiError(404, "picture_not_found", "there is no such picture, or its address has expired");
  const auto record = dispatcher_.find(id);
  if (!record)
    throw ApiError(404, "picture_not_found", "there is no such picture, or its address has expired");
  send_picture(call, *record, index);
}

}  // namespace atelier::server
