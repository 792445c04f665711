#include "server/api_fields.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/suggest.h"
#include "base/text.h"
#include "server/api_error.h"
#include "server/api_field.h"
#include "server/json_values.h"

namespace atelier::server {
namespace {

// Names that users of the command line know them by.
constexpr std::pair<std::string_view, std::string_view> kShortNames[] = {{"steps", "num_inference_steps"},
                                                                         {"guidance", "guidance_scale"}};

// Fields of a request that are no business of clients, or are read otherwise.
bool is_own(const Field& field) {
  constexpr std::string_view kNot[] = {"lora", "output_compression"};
  // what does not decide the look names files
  return field.help.empty() || field.effect == Effect::kPlace ||
         std::find(std::begin(kNot), std::end(kNot), field.name) != std::end(kNot);
}

Json schema_of(const Field& field, const FieldRef& slot, const RequestCaps& caps) {
  Json schema = std::visit(
      []<class V>(V*) -> Json {
        if constexpr (requires(V v) { v.has_value(); }) {
          using T = typename V::value_type;
          if constexpr (std::is_same_v<T, bool>)
            return {{"type", "boolean"}};
          else if constexpr (std::is_integral_v<T>)
            return {{"type", "integer"}};
          else if constexpr (std::is_same_v<T, double>)
            return {{"type", "number"}};
          else if constexpr (std::is_same_v<T, std::string>)
            return {{"type", "string"}};
          else
            return {{"type", "array"}, {"minItems", 2}, {"maxItems", 2}, {"items", {{"type", "integer"}}}};
        }
        return {{"type", "string"}};
      },
      slot);
  if (schema["type"] == "string" && field.choices.empty()) schema["maxLength"] = caps.prompt_bytes / 4;
  if (!field.choices.empty()) schema["enum"] = words_of(field.choices);
  Json& number = schema["type"] == "array" ? schema["items"] : schema;
  const bool is_number = number["type"] == "integer" || number["type"] == "number";
  if (is_number && std::isfinite(field.least)) number["minimum"] = field.least;
  if (is_number && std::isfinite(field.most)) number["maximum"] = field.most;
  if (field.name == "num_inference_steps") number["maximum"] = caps.steps;
  if (field.name == "num_frames") number["maximum"] = caps.frames;
  if (field.name == "seed") number["minimum"] = -1, number["maximum"] = UINT64_MAX;
  if (field.name == "prompt") schema["minLength"] = 1;
  if (is_text(slot) && field.choices.empty() && field.effect == Effect::kShape)  // a series of numbers
    return {{"anyOf", {schema, {{"type", "array"}, {"minItems", 1}, {"items", {{"type", "number"}}}}}}};
  return schema;
}

// Of a request itself, each with its other names.
void visit_request_fields(Endpoint endpoint, const std::function<void(const Field&, const FieldRef&)>& visit,
                          request::Request& request) {
  constexpr std::string_view kOfVideos[] = {"num_frames", "fps", "guidance_scale_2"};
  request.fields([&](const Field& field, const FieldRef& slot) {
    const bool is_video =
        std::find(std::begin(kOfVideos), std::end(kOfVideos), field.name) != std::end(kOfVideos);
    // clients give no control video, so it has no scale either
    const bool is_elsewhere = field.name == "conditioning_scale" ||
                              (is_video && endpoint != Endpoint::kVideos) ||
                              (field.name == "strength" && endpoint != Endpoint::kEdits);
    if (!is_own(field) && !is_elsewhere) visit(field, slot);
  });
}

std::vector<ApiField> fields_for(Endpoint endpoint, const RequestCaps& caps) {
  auto out = own_fields(endpoint, caps);
  request::Request probe;
  visit_request_fields(
      endpoint,
      [&](const Field& field, const FieldRef& slot) {
        std::string help(field.help);
        if (const size_t end = help.find(';'); field.name == "prompt" && end != std::string::npos)
          help.resize(end);
        if (field.name == "strength") help.replace(help.find("--image"), 7, "the picture");
        out.push_back({field.name, FieldUse::kHonoured, help, schema_of(field, slot, caps), nullptr});
      },
      probe);
  return out;
}

// Reads a field of the request itself; false if it is none.
bool read_request_field(Endpoint endpoint, Draft& draft, const std::string& name, const Json& value,
                        const RequestCaps& caps) {
  std::string canonical = name;
  for (const auto& [shorter, full] : kShortNames) {
    if (name == shorter) canonical = full;
  }
  bool is_found = false;
  visit_request_fields(
      endpoint,
      [&](const Field& field, const FieldRef& slot) {
        if (field.name != canonical) return;
        is_found = true;
        if (is_text(slot) && !value.is_array() &&
            text_of(name, value).size() > static_cast<size_t>(caps.prompt_bytes))
          refuse(name, str("max_prompt_bytes ", caps.prompt_bytes, ": the text is longer"));
        try {
          set_from_json(field, slot, value, name);
          check_limits(field, slot, name);
        } catch (const Error& e) {
          throw ApiError(400, "invalid_value", e.what(), name);
        }
      },
      draft.row.request);
  return is_found;
}

void check_caps(const Draft& draft, const RequestCaps& caps) {
  const auto& r = draft.row.request;
  const int64_t pixels = int64_t{r.width.value_or(1)} * r.height.value_or(1);
  if (pixels > caps.pixels)
    refuse("size", str("max_pixels ", caps.pixels, ": ", *r.width, "x", *r.height, " has ", pixels));
  if (r.num_inference_steps.value_or(1) > caps.steps)
    refuse("num_inference_steps",
           str("max_steps ", caps.steps, ": ", *r.num_inference_steps, " were asked for"));
  if (r.num_frames.value_or(1) > caps.frames)
    refuse("num_frames", str("max_frames ", caps.frames, ": ", *r.num_frames, " were asked for"));
  for (const auto* list : {&r.sigmas, &r.timesteps}) {
    if (*list && std::count((*list)->begin(), (*list)->end(), ',') >= caps.steps)
      refuse(list == &r.sigmas ? "sigmas" : "timesteps", str("max_steps ", caps.steps, ": more were given"));
  }
}

bool says(const Json& body, std::string_view name) {
  const auto at = body.find(name);
  return at != body.end() && !at->is_null();
}

void check_together(const Draft& draft, const Json& body) {
  for (const auto& [shorter, full] : kShortNames) {
    if (says(body, shorter) && says(body, full))
      refuse(shorter, str("it is ", full, " by a shorter name: give one of them"));
  }
  if (draft.partial_images > 0 && !draft.is_stream && !draft.is_async)
    refuse("partial_images", "they need stream or async true");
  if (draft.format == "png" && draft.row.request.output_compression)
    refuse("output_compression", "png has none: choose output_format jpeg or webp");
  if (draft.is_stream && draft.is_async) refuse("async", "stream and async exclude each other");
  if (draft.is_stream && draft.response_format == "url")
    refuse("response_format", "a stream carries b64_json");
  if (says(body, "size") && body["size"] != "auto" && (says(body, "width") || says(body, "height")))
    refuse("size", "give size, or width and height");
}

}  // namespace

ApiFields::ApiFields(Endpoint endpoint, const RequestCaps& caps)
    : endpoint_(endpoint), caps_(caps), fields_(fields_for(endpoint, caps)) {}
ApiFields::~ApiFields() = default;

void ApiFields::read(Draft& draft, const std::string& name, const Json& value) const {
  const auto field =
      std::find_if(fields_.begin(), fields_.end(), [&](const ApiField& f) { return f.name == name; });
  const bool is_known = field != fields_.end();
  if (is_known && field->use == FieldUse::kRefused) refuse(name, field->note, "unsupported_parameter");
  if (is_known && value.is_null()) return;  // not said
  if (is_known && field->read) return field->read(draft, value);
  if (name == "strength" && endpoint_ != Endpoint::kEdits)
    refuse(name, "it belongs to a picture to begin with: POST /v1/images/edits", "unsupported_parameter");
  if (read_request_field(endpoint_, draft, name, value, caps_)) return;
  std::vector<std::string> names;
  for (const auto& f : fields_) names.emplace_back(f.name);
  refuse(name, str("there is no such field", did_you_mean(name, names, "; GET /v1/capabilities lists all")),
         "unknown_parameter");
}

Draft ApiFields::read(const Json& body) const {
  if (!body.is_object()) throw ApiError(400, "invalid_value", "the body must be a JSON object");
  Draft draft;
  draft.is_video = endpoint_ == Endpoint::kVideos;
  if (draft.is_video) draft.format.clear();  // the server's
  for (const auto& [name, value] : body.items()) read(draft, name, value);
  if (trim(draft.row.request.prompt).empty())
    throw ApiError(400, "missing_required_parameter", "prompt: say what to draw", "prompt");
  check_caps(draft, caps_);
  check_together(draft, body);
  return draft;
}

bool ApiFields::knows(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(), [&](const ApiField& f) { return f.name == name; });
}

bool ApiFields::is_list(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(), [&](const ApiField& f) {
    return f.name == name && f.schema.is_object() && f.schema.value("type", "") == "array";
  });
}

Json ApiFields::capabilities() const {
  constexpr std::array<const char*, 3> kUses{"honoured", "no effect", "refused"};
  Json out = Json::array();
  for (const auto& field : fields_) {
    Json entry{{"name", field.name}, {"use", kUses[static_cast<size_t>(field.use)]}, {"note", field.note}};
    if (!field.schema.is_null()) entry["schema"] = field.schema;
    entry["is_of_request"] =
        field.use == FieldUse::kHonoured && !field.read && !field.schema.contains("format");
    for (const auto& [shorter, full] : kShortNames) {
      if (field.name == full) entry["also"] = shorter;
    }
    out.push_back(std::move(entry));
  }
  return out;
}

Json ApiFields::schema() const {
  Json properties = Json::object();
  for (const auto& field : fields_) {
    if (field.use == FieldUse::kRefused) continue;
    Json& property = properties[std::string(field.name)] = field.schema;
    property["description"] = field.note;
    for (const auto& [shorter, full] : kShortNames) {
      if (field.name == full) properties[std::string(shorter)] = field.schema;
    }
  }
  Json required = Json::array({"prompt"});
  if (endpoint_ == Endpoint::kEdits) required.push_back("image");
  return {{"type", "object"},
          {"required", required},
          {"additionalProperties", false},
          {"properties", properties}};
}

}  // namespace atelier::server
