#include "media/texts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "media/exif.h"

namespace atelier::media {
namespace {

std::string values_as_json(const Metadata& metadata) {
  if (metadata.values.empty()) return {};
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [key, value] : metadata.values) object[key] = value;
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// JSON whose longest texts are cut until it fits: a JPEG's EXIF is at most 64 KiB.
std::string values_as_json(const Metadata& metadata, size_t bytes) {
  std::string json = values_as_json(metadata);
  Metadata shorter = metadata;
  for (size_t limit = bytes / 2; json.size() > bytes && limit >= 8; limit /= 2) {
    for (auto& [key, value] : shorter.values) value = cut_text(value, limit);
    json = values_as_json(shorter);
  }
  return json.size() <= bytes ? json : R"({"truncated":"yes"})";
}

// Cut before its last line, where seed and size stand: a prompt may be long.
std::string cut_parameters(const std::string& text, size_t bytes) {
  const size_t line = text.rfind('\n');
  const size_t end = line == std::string::npos ? 0 : text.size() - line;
  if (text.size() <= bytes || end == 0 || end >= bytes) return cut_text(text, bytes);
  return cut_text(std::string_view(text).substr(0, line), bytes - end) + text.substr(line);
}

}  // namespace

Texts texts_of(const Metadata& metadata, Format format) {
  Texts texts{metadata.parameters, values_as_json(metadata)};
  if (format == Format::kJpeg) {
    // UTF-16 takes at most twice the bytes of UTF-8
    texts.parameters = cut_parameters(texts.parameters, kJpegTextBytes / 2);
    texts.json = values_as_json(metadata, kJpegTextBytes);
  }
  // the formats end a text at a NUL
  std::erase(texts.parameters, '\0');
  return texts;
}

Metadata metadata_of(const Texts& texts) {
  Metadata metadata{texts.parameters, {}};
  const auto object = nlohmann::ordered_json::parse(texts.json, nullptr, false);
  if (!object.is_object()) return metadata;
  for (const auto& [key, value] : object.items()) {
    // nothing of ours nests, and a dump of a hostile nest would recurse without bound
    if (value.is_structured()) continue;
    metadata.values.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return metadata;
}

int usual_quality(int quality) {
  return quality < 1 ? 95 : std::min(quality, 100);
}

}  // namespace atelier::media
