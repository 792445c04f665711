#include "request/request_list.h"

#include "base/packed_fields.h"

namespace atelier::request {

void pack(const Request& request, std::string& out) {
  pack_fields(fields_of(request), out);
}

void unpack(std::string_view packed, Request& request) {
  unpack_fields([&](const Visit& visit) { request.fields(visit); }, packed);
}

}  // namespace atelier::request
