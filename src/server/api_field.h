// One field of a request for pictures, as data.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_fields.h"

namespace atelier::server {

enum class FieldUse { kHonoured, kNoEffect, kRefused };

struct ApiField {
  std::string_view name;
  FieldUse use = FieldUse::kHonoured;
  std::string note;
  Json schema;                                              // null: whatever it is, it is refused
  std::function<void(Draft&, const Json&)> read = nullptr;  // null: a field of the request itself
};

// Those of OpenAI's API and the server's own, which are no fields of request::Request.
std::vector<ApiField> own_fields(Endpoint endpoint, const RequestCaps& caps);

}  // namespace atelier::server
