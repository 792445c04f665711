// SHA-256 and HMAC-SHA-256 of bytes in memory, by OpenSSL.
#pragma once
#include <string>
#include <string_view>

namespace atelier {

// 64 hexadecimal digits each. [FIPS 180-4, RFC 2104]
std::string sha256(std::string_view bytes);
std::string hmac_sha256(std::string_view key, std::string_view bytes);

}  // namespace atelier
