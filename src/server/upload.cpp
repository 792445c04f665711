#include "server/upload.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"
#include "media/input.h"
#include "server/api_error.h"
#include "server/base64.h"
#include "server/json_body.h"

namespace atelier::server {
namespace {

constexpr std::string_view kImageNames[] = {"image", "image[]", "images", "images[]", "input_reference"};

// Where a picture of this name goes; null: it is no picture.
std::vector<std::string>* pictures_named(Upload& to, std::string_view name) {
  if (std::find(std::begin(kImageNames), std::end(kImageNames), name) != std::end(kImageNames))
    return &to.images;
  if (name == "mask") return &to.masks;
  return name == "last_image" ? &to.last_images : nullptr;
}

// The names by which clients write lists in a form: "lora" several times, "lora[]", and for the parts of
// objects "lora[][name]", "lora[][strength]".
struct ListPart {
  std::string field, of_object;
};

ListPart list_part(const std::string& name) {
  const size_t end = name.find("[]");
  if (end == std::string::npos) return {name, ""};
  const std::string_view rest = std::string_view(name).substr(end + 2);
  if (rest.empty()) return {name.substr(0, end), ""};
  if (!rest.starts_with('[') || !rest.ends_with(']') || rest.size() < 3) return {name, ""};
  return {name.substr(0, end), std::string(rest.substr(1, rest.size() - 2))};
}

using PartsOfObjects = std::map<std::string, std::map<std::string, std::vector<std::string>>>;

// Some clients write all names before all strengths: what belongs together can be told only if every object
// has all parts. Throws ApiError (400) if not.
void add_objects(Json& fields, const PartsOfObjects& parts) {
  for (const auto& [field, values] : parts) {
    Json& list = fields[field];
    if (list.is_null()) list = Json::array();
    const size_t count = values.begin()->second.size();
    for (size_t i = 0; i < count; ++i) {
      Json object = Json::object();
      for (const auto& [part, texts] : values) {
        if (texts.size() != count)
          throw ApiError(
              400, "invalid_value",
              str(field, ": in a form each entry needs the same parts; or give the list as JSON text"),
              field);
        object[part] = texts[i];
      }
      list.push_back(std::move(object));
    }
  }
}

Upload from_form(std::vector<http::FormPart> parts, const ApiFields& known) {
  Upload out;
  PartsOfObjects objects;
  for (auto& part : parts) {
    if (auto* pictures = pictures_named(out, part.name)) {
      pictures->push_back(std::move(part.data));
      continue;
    }
    const ListPart at = list_part(part.name);
    const bool is_text = trim(part.data).starts_with('[');  // the whole list as JSON
    if (known.is_list(at.field) && !at.of_object.empty()) {
      objects[at.field][at.of_object].push_back(std::move(part.data));
    } else if (known.is_list(at.field) && !is_text) {
      Json& list = out.fields[at.field];
      if (list.is_null()) list = Json::array();
      list.push_back(std::move(part.data));
    } else if (out.fields.contains(part.name)) {
      throw ApiError(400, "invalid_value", str(part.name, ": it is there twice"), part.name);
    } else {
      out.fields[part.name] = known.is_list(part.name) ? parsed_json(part.data) : Json(std::move(part.data));
    }
  }
  add_objects(out.fields, objects);
  return out;
}

// A picture in JSON: a data URL, base64, or {"image_url": either}.
std::string picture_in(const std::string& name, const Json& value) {
  if (value.is_object()) {
    for (const auto& [key, part] : value.items()) {
      if (key == "file_id")
        throw ApiError(400, "unsupported_parameter",
                       str(name, ": file_id is not offered, this server keeps no files: send image_url"),
                       name);
      if (key != "image_url")
        throw ApiError(400, "unknown_parameter", str(name, ": there is no ", in_quotes(key)), name);
    }
    if (!value.contains("image_url"))
      throw ApiError(400, "missing_required_parameter", str(name, ": image_url is missing"), name);
    return picture_in(name, value["image_url"].is_object() && value["image_url"].contains("url")
                                ? value["image_url"]["url"]
                                : value["image_url"]);
  }
  if (!value.is_string())
    throw ApiError(400, "invalid_value", str(name, ": a data URL or base64 is expected"), name);
  std::string_view text = value.get_ref<const std::string&>();
  if (text.starts_with("http://") || text.starts_with("https://"))
    throw ApiError(400, "unsupported_value",
                   str(name, ": this server fetches nothing: send the picture as a data URL"), name);
  if (text.starts_with("data:")) {
    const size_t comma = text.find(',');
    const bool is_base64 = comma != std::string_view::npos && text.substr(0, comma).ends_with(";base64");
    if (!is_base64) throw ApiError(400, "invalid_value", str(name, ": a data URL must be base64"), name);
    text.remove_prefix(comma + 1);
  }
  auto bytes = from_base64(text);
  if (!bytes) throw ApiError(400, "invalid_value", str(name, ": it is not valid base64"), name);
  return std::move(*bytes);
}

Upload from_json(const std::string& body) {
  Upload out;
  const Json all = parsed_json(body);
  if (!all.is_object()) throw ApiError(400, "invalid_value", "the body must be a JSON object");
  for (const auto& [name, value] : all.items()) {
    if (value.is_null()) continue;
    if (auto* pictures = pictures_named(out, name)) {
      for (const auto& one : value.is_array() ? value : Json::array({value}))
        pictures->push_back(picture_in(name, one));
    } else {
      out.fields[name] = value;
    }
  }
  return out;
}

}  // namespace

media::Image decoded(const std::string& name, const std::string& bytes) {
  try {
    return media::decode_upright(bytes);
  } catch (const Error& e) {
    throw ApiError(400, "invalid_image", str(name, ": ", e.what()), name);
  }
}

Upload take_upload(http::IncomingRequest& request, const ApiFields& known) {
  return request.form.empty() ? from_json(request.body) : from_form(std::move(request.form), known);
}

}  // namespace atelier::server
