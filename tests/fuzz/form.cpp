// Fuzzes the reader of multipart forms, the paths and the queries: what is cut anywhere gives the same parts, or the same
// refusal, and nothing is held beyond the limits. The first byte says how large the pieces are.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "http/form.h"
#include "http/message.h"
#include "server/router.h"

using namespace atelier;

namespace {

constexpr http::FormLimits kLimits{.parts = 4, .header_bytes = 256, .value_bytes = 512, .file_bytes = 1024};

// The parts as one text; "!" and why for what is refused.
std::string read(std::string_view text, size_t piece) {
  http::FormReader reader("line", kLimits);
  std::string out;
  try {
    for (size_t at = 0; at < text.size(); at += piece) reader.add(text.substr(at, piece));
    for (const auto& part : reader.finish()) {
      if (part.data.size() > kLimits.file_bytes) std::abort();
      out += part.name + "|" + part.file_name + "|" + part.content_type + "|" + part.data + "\n";
    }
    return out;
  } catch (const Error& e) {
    if (e.kind() != Kind::kUsage) std::abort();
    return "!";
  }
}

void find_paths(const std::string& text) {
  static const server::Router router = [] {
    server::Router r;
    for (const char* pattern : {"/", "/v1/models/{id...}", "/v1/jobs/{id}/images/{index}"}) r.add({.method = "GET", .pattern = pattern});
    return r;
  }();
  for (const auto& [name, value] : router.find("GET", text).values) {
    if (value.empty() || value.find('\0') != std::string::npos) std::abort();
  }
  http::query_fields(text);
  http::form_boundary(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (read(text, size_t{1} + data[0]) != read(text, text.size() + 1)) std::abort();
  find_paths(std::string(text));
  return 0;
}
