#include "server/job_record.h"

#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"

namespace atelier::server {
namespace {

constexpr std::array<std::string_view, 5> kStates{"queued", "running", "done", "failed", "cancelled"};

JobState state_named(const std::string& name) {
  for (size_t i = 0; i < kStates.size(); ++i) {
    if (kStates[i] == name) return static_cast<JobState>(i);
  }
  throw Error(Kind::kCheckpoint, "a job's state is not known: " + name);
}

Json to_json(const StoredPicture& p) {
  return {
      {"name", p.name}, {"sha256", p.sha256}, {"bytes", p.bytes}, {"seconds", p.seconds}, {"seed", p.seed}};
}

StoredPicture picture_from_json(const Json& json) {
  return {.name = json.at("name"),
          .sha256 = json.at("sha256"),
          .bytes = json.at("bytes"),
          .seconds = json.at("seconds"),
          .seed = json.at("seed")};
}

}  // namespace

std::string_view state_name(JobState state) {
  return kStates[static_cast<size_t>(state)];
}

bool is_final(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

Json to_json(const JobRecord& r) {
  Json out{{"id", r.id},
           {"owner", r.owner},
           {"idempotency", r.idempotency},
           {"body_hash", r.body_hash},
           {"kind", r.kind},
           {"format", r.format},
           {"priority", r.priority},
           {"created", r.created},
           {"started", r.started},
           {"finished", r.finished},
           {"timeout", r.timeout},
           {"state", state_name(r.state)},
           {"error_code", r.error_code},
           {"error_message", r.error_message},
           {"error_status", r.error_status},
           {"notes", r.notes},
           {"request_id", r.request_id},
           {"requests", Json::array()},
           {"pictures", Json::array()}};
  for (const auto& request : r.requests) out["requests"].push_back(fields_to_json(fields_of(request)));
  for (const auto& picture : r.pictures) out["pictures"].push_back(to_json(picture));
  return out;
}

JobRecord job_record_from_json(const Json& json) {
  JobRecord r;
  try {
    json.at("id").get_to(r.id);
    json.at("owner").get_to(r.owner);
    json.at("idempotency").get_to(r.idempotency);
    json.at("body_hash").get_to(r.body_hash);
    json.at("kind").get_to(r.kind);
    json.at("format").get_to(r.format);
    json.at("priority").get_to(r.priority);
    json.at("created").get_to(r.created);
    json.at("started").get_to(r.started);
    json.at("finished").get_to(r.finished);
    json.at("timeout").get_to(r.timeout);
    r.state = state_named(json.at("state"));
    json.at("error_code").get_to(r.error_code);
    json.at("error_message").get_to(r.error_message);
    json.at("error_status").get_to(r.error_status);
    json.at("notes").get_to(r.notes);
    json.at("request_id").get_to(r.request_id);
    for (const auto& request : json.at("requests"))
      r.requests.push_back(fields_from_json<request::Request>(request));
    for (const auto& picture : json.at("pictures")) r.pictures.push_back(picture_from_json(picture));
  } catch (const Json::exception& e) {
    throw Error(Kind::kCheckpoint, str("a job's record cannot be read: ", e.what()));
  }
  return r;
}

JobRecord job_record_of(const std::string& text) {
  try {
    return job_record_from_json(Json::parse(text));
  } catch (const Json::exception& e) {
    throw Error(Kind::kCheckpoint, str("a job's record cannot be read: ", e.what()));
  }
}

Json shown_job(const JobRecord& r) {
  const auto time = [](double seconds) { return seconds > 0 ? Json(seconds) : Json(nullptr); };
  Json out{{"id", r.id},
           {"object", "job"},
           {"kind", r.kind},
           {"status", state_name(r.state)},
           {"priority", r.priority},
           {"created", r.created},
           {"started", time(r.started)},
           {"finished", time(r.finished)},
           {"n", r.requests.size()},
           {"output_format", r.format},
           {"notes", r.notes},
           {"error", nullptr},
           {"parameters", nullptr},
           {"images", Json::array()}};
  if (!r.error_code.empty()) out["error"] = {{"code", r.error_code}, {"message", r.error_message}};
  if (!r.requests.empty()) {
    Json parameters = request::look(r.requests.front(), nullptr);
    // what the server adds for itself, and what would say where its files are
    fields_of(r.requests.front())([&](const Field& field, const FieldRef&) {
      if (field.help.empty()) parameters.erase(std::string(field.name));
    });
    if (parameters.contains("lora")) {
      for (auto& adapter : parameters["lora"]) {
        const std::string name = adapter;
        adapter = name.substr(name.rfind('/') + 1);
      }
    }
    out["parameters"] = std::move(parameters);
  }
  for (size_t i = 0; i < r.pictures.size(); ++i) {
    const auto& p = r.pictures[i];
    out["images"].push_back({{"index", i},
                             {"href", str("/v1/jobs/", r.id, "/images/", i)},
                             {"sha256", p.sha256},
                             {"bytes", p.bytes},
                             {"seconds", p.seconds},
                             {"seed", p.seed}});
  }
  return out;
}

std::string new_id(std::string_view prefix) {
  static thread_local std::random_device random;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out(prefix);
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = random();
    for (int i = 0; i < 8; ++i, bits >>= 4) out += kDigits[bits & 15];
  }
  return out;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace atelier::server
