#include "server/model_fields.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "server/api_error.h"

namespace atelier::server {
namespace {

// Fields that every model honours, or that need more than a value to be tried.
constexpr std::string_view kUntried[] = {"prompt", "width", "height",     "num_inference_steps",
                                         "seed",   "fps",   "num_frames", "strength"};

// Values to try a field by: it is refused if no value goes.
std::vector<Json> samples_of(const Json& schema) {
  if (schema.contains("anyOf")) return {"1,0.5", "900,500", "10,5"};  // sigmas and timesteps
  const std::string type = schema.value("type", "");
  if (type == "array") return {Json::array({64, 64})};
  if (type == "string") return {"a"};
  const double most = schema.value("maximum", 1e9);
  return most <= 1 ? std::vector<Json>{0.5} : std::vector<Json>{2, 16};
}

// What some fields have an effect beside.
std::vector<Json> companions(const std::string& name) {
  std::vector<Json> out{Json::object()};
  for (Json more : {Json{{"sampler", "ddim"}}, Json{{"cache_type", "first_block_cache"}},
                    Json{{"negative_prompt", "a"}, {"guidance_scale", 5}},
                    Json{{"negative_original_size", {64, 64}}, {"negative_target_size", {64, 64}}}}) {
    more.erase(name);
    out.push_back(std::move(more));
  }
  return out;
}

class FieldTrial {
 public:
  FieldTrial(const ApiFields& fields, const RequestMaker& maker)
      : fields_(fields), maker_(maker), format_(maker.card().is_video ? "webp" : "png") {}

  // None if the request is made, with what is said of it; else why not.
  std::optional<std::string> problem(Json body) {
    body["prompt"] = "a";
    try {
      notes_ = maker_.make(fields_.read(body).row, format_).notes;
      return std::nullopt;
    } catch (const Error& e) {
      return e.what();
    } catch (const ApiError& e) {
      return e.what();
    }
  }

  // None if any value goes, else why the first does not.
  std::optional<std::string> problem(const std::string& name, const std::vector<Json>& values) {
    std::optional<std::string> first;
    for (const Json& more : companions(name)) {
      for (const Json& value : values) {
        Json body = more;
        body[name] = value;
        const auto why = problem(body);
        if (!why) return std::nullopt;
        if (!first) first = why;
      }
    }
    return first;
  }

  // Of the last request that was made: "NAME has no effect: ...", or empty.
  std::string idleness(const std::string& name) const {
    const auto at = std::find_if(notes_.begin(), notes_.end(), [&](const std::string& note) {
      return note.starts_with(name + " has no effect");
    });
    return at == notes_.end() ? "" : *at;
  }

 private:
  const ApiFields& fields_;
  const RequestMaker& maker_;
  const std::string format_;
  std::vector<std::string> notes_;
};

}  // namespace

Json model_verdicts(const ApiFields& fields, const RequestMaker& maker) {
  Json out = Json::object();
  FieldTrial trial(fields, maker);
  if (trial.problem(Json::object())) return out;  // pictures must be shown first
  for (const auto& entry : fields.capabilities()) {
    const std::string name = entry.at("name");
    const bool is_tried = entry.at("is_of_request") &&
                          std::find(std::begin(kUntried), std::end(kUntried), name) == std::end(kUntried);
    if (!is_tried) continue;
    const Json& schema = entry.at("schema");
    if (schema.contains("enum")) {
      Json good = Json::array();
      std::optional<std::string> why;
      for (const Json& word : schema.at("enum")) {
        const auto problem = trial.problem(name, {word});
        if (!problem) good.push_back(word);
        if (problem && !why) why = problem;
      }
      if (good.empty())
        out[name] = {{"use", "refused"}, {"note", without_dashes(*why)}};
      else if (why)
        out[name] = {{"enum", good}};
      continue;
    }
    if (const auto why = trial.problem(name, samples_of(schema)))
      out[name] = {{"use", "refused"}, {"note", without_dashes(*why)}};
    else if (const auto idle = trial.idleness(name); !idle.empty())
      out[name] = {{"use", "no effect"}, {"note", without_dashes(idle)}};
  }
  return out;
}

Json with_verdicts(Json capabilities, const Json& verdicts) {
  for (auto& entry : capabilities) {
    entry.erase("is_of_request");
    const auto at = verdicts.find(entry.at("name").get<std::string>());
    if (at == verdicts.end()) continue;
    if (at->contains("enum")) entry["schema"]["enum"] = at->at("enum");
    for (const char* key : {"use", "note"}) {
      if (at->contains(key)) entry[key] = at->at(key);
    }
    if (entry.at("use") == "refused") entry.erase("schema");
  }
  return capabilities;
}

std::string without_dashes(const std::string& message) {
  std::string out;
  for (size_t i = 0; i < message.size(); ++i) {
    const bool begins = i == 0 || message[i - 1] == ' ' || message[i - 1] == '(';
    const bool is_flag = begins && message.compare(i, 2, "--") == 0 && i + 2 < message.size() &&
                         message[i + 2] >= 'a' && message[i + 2] <= 'z';
    if (is_flag) i += 2;
    out += message[i];
  }
  return out;
}

}  // namespace atelier::server
