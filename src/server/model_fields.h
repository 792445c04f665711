// What the fields of requests do for the model that is loaded.
#pragma once
#include <string>

#include "base/json.h"
#include "server/api_fields.h"
#include "server/request_maker.h"

namespace atelier::server {

// By name of each field that does not do what ApiFields says of it: {"use", "note"}, and {"enum"} of values
// that are fewer here. Found by trying each field on what makes requests, so it is as true as that.
Json model_verdicts(const ApiFields& fields, const RequestMaker& maker);

// The list of ApiFields::capabilities() with these verdicts.
Json with_verdicts(Json capabilities, const Json& verdicts);

// A message of the engine without the dashes of flags: fields have the same names.
std::string without_dashes(const std::string& message);

}  // namespace atelier::server
