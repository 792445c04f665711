// Rows of prompt files in lists that are longer than memory.
#include "base/packed_fields.h"
#include "request/prompts.h"

namespace atelier::request {
namespace {

// Those of the program too.
Fields all_fields(const PromptRow& row) {
  return [&row](const Visit& visit) {
    auto& r = const_cast<PromptRow&>(row);
    r.request.fields(visit);
    visit({.name = "images"}, &r.images);
    visit({.name = "custom_name"}, &r.custom_name);
  };
}

}  // namespace

void pack(const PromptRow& row, std::string& out) {
  pack_fields(all_fields(row), out);
}

void unpack(std::string_view packed, PromptRow& row) {
  unpack_fields(all_fields(row), packed);
}

}  // namespace atelier::request
