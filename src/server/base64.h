// Base64 with its padding. [RFC 4648]
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace atelier::server {

std::string to_base64(std::string_view bytes);
// None for anything else; line ends are skipped.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace atelier::server
