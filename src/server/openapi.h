// The API as an OpenAPI 3.1 document, from the routes and the lists of fields that answer.
#pragma once
#include <string>

#include "base/json.h"
#include "server/router.h"

namespace atelier::server {

// requests: the schemas Generation, Edit and VideoRequest of what is sent.
Json openapi_document(const Router& router, const Json& requests, const std::string& version);

}  // namespace atelier::server
