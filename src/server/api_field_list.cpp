// The fields that are no fields of a request itself.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"
#include "request/adapters.h"
#include "server/api_field.h"
#include "server/json_values.h"

namespace atelier::server {
namespace {

constexpr std::string_view kB64[] = {"b64_json"}, kB64OrUrl[] = {"b64_json", "url"},
                           kFormats[] = {"png", "jpeg", "webp"}, kVideoFormats[] = {"webp", "gif", "mp4"},
                           kTiers[] = {"exact", "fast", "fast-strict"},
                           kAttentionDtypes[] = {"auto", "fp8_e4m3"}, kOpaque[] = {"auto", "opaque"},
                           kBackgrounds[] = {"auto", "opaque", "transparent"},
                           kModerations[] = {"auto", "low"},
                           kQualities[] = {"auto", "standard", "hd", "low", "medium", "high"};

Json words_schema(std::span<const std::string_view> words) {
  Json schema{{"type", "string"}, {"enum", Json::array()}};
  for (const auto w : words) schema["enum"].push_back(w);
  return schema;
}

Json integer_schema(int64_t least, int64_t most) {
  return {{"type", "integer"}, {"minimum", least}, {"maximum", most}};
}

// Digits alone, as the schema says.
std::optional<int64_t> side_of(std::string_view text) {
  if (text.starts_with('0') || text.find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  return to_integer(text);
}

// "1024x768", or auto: the model's.
void read_size(Draft& draft, const Json& value) {
  const std::string text = text_of("size", value);
  if (text == "auto") return;
  const size_t cross = std::min(text.find('x'), text.size());
  const auto width = side_of(text.substr(0, cross));
  const auto height = side_of(text.substr(std::min(cross + 1, text.size())));
  if (!width || !height || *width > 65536 || *height > 65536)
    refuse("size", str(in_quotes(text), " is no size: WIDTHxHEIGHT or auto is expected, such as 1024x1024"));
  draft.row.request.width = static_cast<int>(*width);
  draft.row.request.height = static_cast<int>(*height);
}

void read_adapters(Draft& draft, const Json& value, const RequestCaps& caps) {
  if (!value.is_array())
    refuse("lora", "a list of names, or of {\"name\": ..., \"strength\": ..., \"expert\": ...}, is expected");
  if (std::ssize(value) > caps.adapters)
    refuse("lora", str("max_adapters ", caps.adapters, ": ", value.size(), " were given"));
  for (const auto& entry : value) {
    AdapterWish wish;
    if (entry.is_object()) {
      for (const auto& [key, part] : entry.items()) {
        if (key == "name") {
          wish.name = text_of("lora", part);
        } else if (key == "strength") {
          wish.strength = number_of("lora", part, -1e3, 1e3);
        } else if (key == "expert") {
          wish.expert = text_of("lora", part);
          if (!request::is_expert_name(wish.expert))
            refuse("lora", str(in_quotes(wish.expert),
                               " is no expert: a component such as transformer_2 is expected"));
        } else {
          refuse("lora", str("an adapter has a name, a strength and an expert, and no ", in_quotes(key)));
        }
      }
    } else {
      wish.name = text_of("lora", entry);
    }
    if (wish.name.empty()) refuse("lora", "an adapter needs a name");
    draft.adapters.push_back(std::move(wish));
  }
}

std::vector<ApiField> answer_fields(const RequestCaps& caps) {
  const auto url = caps.has_urls;
  return {
      {"response_format", FieldUse::kHonoured,
       url ? "b64_json, or url: signed and expiring" : "b64_json; url needs a server with --public_url",
       url ? words_schema(kB64OrUrl) : words_schema(kB64),
       [url](Draft& d, const Json& v) {
         d.response_format = word_of("response_format", v, kB64OrUrl);
         if (d.response_format == "url" && !url)
           refuse("response_format",
                  "url is not offered by this server (it runs without --public_url); use b64_json");
       }},
      {"output_format", FieldUse::kHonoured, "of the pictures", words_schema(kFormats),
       [](Draft& d, const Json& v) { d.format = word_of("output_format", v, kFormats); }},
      {"output_compression", FieldUse::kHonoured, "quality of jpeg and webp, 0 to 100; png has none",
       integer_schema(0, 100),
       [](Draft& d, const Json& v) {
         d.row.request.output_compression = static_cast<int>(integer_of("output_compression", v, 0, 100));
       }},
      {"stream",
       FieldUse::kHonoured,
       "server-sent events: progress, previews, the pictures",
       {{"type", "boolean"}},
       [](Draft& d, const Json& v) { d.is_stream = switch_of("stream", v); }},
      {"partial_images", FieldUse::kHonoured, "previews on the way, of a stream or in the events of a job",
       integer_schema(0, 3),
       [](Draft& d, const Json& v) {
         d.partial_images = static_cast<int>(integer_of("partial_images", v, 0, 3));
       }},
      {"async",
       FieldUse::kHonoured,
       "answer with the job at once (202); GET /v1/jobs/{id} follows it",
       {{"type", "boolean"}},
       [](Draft& d, const Json& v) { d.is_async = switch_of("async", v); }},
      {"priority", FieldUse::kHonoured, "higher ones are drawn first; waiting 30 s is worth 1",
       integer_schema(-10, 10),
       [](Draft& d, const Json& v) { d.priority = static_cast<int>(integer_of("priority", v, -10, 10)); }},
      {"timeout",
       FieldUse::kHonoured,
       "seconds after which the job is given up",
       {{"type", "number"}, {"minimum", 0.1}, {"maximum", 86400}},
       [](Draft& d, const Json& v) { d.timeout = number_of("timeout", v, 0.1, 86400); }},
  };
}

Json adapters_schema(const RequestCaps& caps) {
  return {{"type", "array"},
          {"maxItems", caps.adapters},
          {"items",
           {{"anyOf",
             {{{"type", "string"}, {"minLength", 1}},
              {{"type", "object"},
               {"required", {"name"}},
               {"additionalProperties", false},
               {"properties",
                {{"name", {{"type", "string"}, {"minLength", 1}}},
                 {"strength", {{"type", "number"}, {"minimum", -1000}, {"maximum", 1000}}},
                 {"expert", {{"type", "string"}, {"pattern", "^[a-z0-9_]+$"}}}}}}}}}}};
}

std::vector<ApiField> openai_fields(const RequestCaps& caps) {
  const int most = caps.n;
  const auto no_effect = [](std::string_view name, std::span<const std::string_view> words, const char* why) {
    return ApiField{name, FieldUse::kNoEffect, why, words_schema(words),
                    [name, words](Draft&, const Json& v) { word_of(name, v, words); }};
  };
  return {
      {"model",
       FieldUse::kHonoured,
       "the id of the model that is loaded, or nothing",
       {{"type", "string"}},
       [](Draft& d, const Json& v) { d.model = text_of("model", v); }},
      {"n", FieldUse::kHonoured, "pictures, each with the next seed", integer_schema(1, most),
       [most](Draft& d, const Json& v) { d.row.images = static_cast<int>(integer_of("n", v, 1, most)); }},
      {"size",
       FieldUse::kHonoured,
       "WIDTHxHEIGHT, or auto: the model's",
       {{"type", "string"}, {"pattern", "^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"}},
       read_size},
      no_effect("quality", kQualities, "num_inference_steps decides"),
      no_effect("moderation", kModerations, "this server has none"),
      {"background", FieldUse::kHonoured, "pictures are opaque", words_schema(kOpaque),
       [](Draft&, const Json& v) {
         if (word_of("background", v, kBackgrounds) == "transparent")
           refuse("background", "pictures are opaque: transparent is not offered");
       }},
      {"user",
       FieldUse::kNoEffect,
       "keys tell clients apart",
       {{"type", "string"}, {"maxLength", 256}},
       [](Draft&, const Json& v) {
         if (text_of("user", v).size() > 1024) refuse("user", "at most 256 letters are expected");
       }},
      {"style", FieldUse::kRefused, "no model of this engine knows styles: say it in the prompt", {}},
      {"tier", FieldUse::kHonoured, "a hint: the tier that the server has loaded, or the request is refused",
       words_schema(kTiers), [](Draft& d, const Json& v) { d.tier = word_of("tier", v, kTiers); }},
      {"attention_dtype", FieldUse::kHonoured,
       "a hint: what the server has loaded, or the request is refused", words_schema(kAttentionDtypes),
       [](Draft& d, const Json& v) { d.attention_dtype = word_of("attention_dtype", v, kAttentionDtypes); }},
      {"layout",
       FieldUse::kHonoured,
       "a hint: the layout that the server runs, or the request is refused",
       {{"type", "string"}},
       [](Draft& d, const Json& v) { d.layout = text_of("layout", v); }},
      {"lora", FieldUse::kHonoured,
       "adapters of the server by name, with strengths; of two denoisers the expert that is meant; GET "
       "/v1/adapters lists them",
       adapters_schema(caps), [caps](Draft& d, const Json& v) { read_adapters(d, v, caps); }},
  };
}

std::vector<ApiField> edit_fields() {
  const Json picture{{"type", "string"}, {"format", "binary"}, {"minLength", 1}};
  return {
      {"image", FieldUse::kHonoured,
       "the picture to begin with: PNG, JPEG or WebP; as a file, a data URL or base64", picture},
      {"mask", FieldUse::kHonoured, "transparent, or if it is opaque white, where the picture is drawn anew",
       picture},
      {"input_fidelity", FieldUse::kRefused, "strength says how much of the picture stays", {}},
  };
}

// A video is a job of its own kind: what says how pictures are answered has no place.
std::vector<ApiField> video_fields(std::vector<ApiField> of_pictures, const RequestCaps& caps) {
  constexpr std::string_view kShared[] = {"model",  "size", "tier",     "attention_dtype",
                                          "layout", "lora", "priority", "timeout"};
  std::vector<ApiField> out;
  for (auto& field : of_pictures) {
    if (std::find(std::begin(kShared), std::end(kShared), field.name) != std::end(kShared))
      out.push_back(std::move(field));
  }
  out.push_back({"seconds",
                 FieldUse::kHonoured,
                 "how long it is; num_frames says it exactly",
                 {{"anyOf",
                   {{{"type", "string"}, {"pattern", "^([1-9][0-9]?|[1-5][0-9]{2}|600)$"}},
                    {{"type", "number"}, {"minimum", 0.01}, {"maximum", 600}}}}},
                 [](Draft& d, const Json& v) { d.seconds = number_of("seconds", v, 0.01, 600); }});
  const bool has_mp4 = caps.has_mp4;
  out.push_back(
      {"output_format", FieldUse::kHonoured,
       has_mp4 ? "of the file" : "of the file; mp4 needs FFmpeg's libraries, which are not in use here",
       words_schema(std::span(kVideoFormats).first(has_mp4 ? 3 : 2)), [has_mp4](Draft& d, const Json& v) {
         d.format = word_of("output_format", v, kVideoFormats);
         if (d.format == "mp4" && !has_mp4)
           refuse("output_format",
                  "mp4 is not offered by this server (FFmpeg's libraries are not in use); use webp");
       }});
  out.push_back({"input_reference",
                 FieldUse::kHonoured,
                 "the first frame, of models that are shown one: a file, a data URL or base64",
                 {{"type", "string"}, {"format", "binary"}}});
  out.push_back({"last_image",
                 FieldUse::kHonoured,
                 "the last frame, of models that are shown one: a file, a data URL or base64",
                 {{"type", "string"}, {"format", "binary"}}});
  return out;
}

}  // namespace

std::vector<ApiField> own_fields(Endpoint endpoint, const RequestCaps& caps) {
  auto out = openai_fields(caps);
  for (auto& field : answer_fields(caps)) out.push_back(std::move(field));
  if (endpoint == Endpoint::kVideos) return video_fields(std::move(out), caps);
  if (endpoint == Endpoint::kEdits) {
    for (auto& field : edit_fields()) out.push_back(std::move(field));
  }
  return out;
}

}  // namespace atelier::server
