// The page of a protocol: what its result says, as tables and charts. Runs nothing and reads no file.
#pragma once
#include <map>
#include <string>

#include "base/json.h"
#include "bench/document.h"

namespace atelier::bench {

// pictures: heat maps as WebP files by the row they belong to.
Document protocol_page(const Json& result, const std::map<std::string, std::string>& pictures);

}  // namespace atelier::bench
