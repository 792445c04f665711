// The fields of requests for pictures: one list, which parses them, refuses them by name, and describes
// itself.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "request/prompts.h"

namespace atelier::server {

enum class Endpoint { kGenerations, kEdits, kVideos };

// What a server takes at most; see ServeSettings.
struct RequestCaps {
  int64_t pixels = 4 << 20;
  int steps = 200, n = 4, frames = 161, prompt_bytes = 32768, adapters = 8;
  bool has_urls = false;  // response_format url is allowed
  bool has_mp4 = true;    // videos can be written as one
};

struct AdapterWish {
  std::string name, expert;
  std::optional<double> strength;
};

// A request as it was written.
struct Draft {
  request::PromptRow row;
  std::string model, format = "png", response_format = "b64_json", tier, attention_dtype, layout;
  bool is_stream = false, is_async = false, is_video = false;
  int partial_images = 0, priority = 0;
  std::optional<double> timeout, seconds;  // s; seconds: of a video
  std::vector<AdapterWish> adapters;
  std::vector<std::string> notes;  // for the client
};

struct ApiField;

class ApiFields {
 public:
  ApiFields(Endpoint endpoint, const RequestCaps& caps);
  ~ApiFields();

  // Of a body, or of the fields of a form. Throws ApiError (400) naming the field for anything that is not
  // honoured as it stands.
  Draft read(const Json& body) const;
  bool knows(std::string_view name) const;
  bool is_list(std::string_view name) const;  // it takes several values
  // Of every field: name, use ("honoured", "no effect", "refused"), note, schema, and is_of_request: it is
  // one of request::Request, of which the model decides.
  Json capabilities() const;
  Json schema() const;  // of the body, in JSON Schema

 private:
  void read(Draft& draft, const std::string& name, const Json& value) const;

  const Endpoint endpoint_;
  const RequestCaps caps_;
  const std::vector<ApiField> fields_;
};

}  // namespace atelier::server
