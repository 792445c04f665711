// Requests, any number of them.
#pragma once
#include <string>
#include <string_view>

#include "request/request.h"
#include "request/spool.h"

namespace atelier::request {

void pack(const Request& request, std::string& out);
void unpack(std::string_view packed, Request& request);
using RequestList = Spool<Request>;

}  // namespace atelier::request
