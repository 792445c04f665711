// SHA-256 and HMAC-SHA-256, by OpenSSL.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace atelier {

// 64 hexadecimal digits each. [FIPS 180-4, RFC 2104]
std::string sha256(std::string_view bytes);
// Of a file that need not fit into memory. Throws Error(kUsage) naming it.
std::string sha256_of_file(const std::filesystem::path& file);
std::string hmac_sha256(std::string_view key, std::string_view bytes);

}  // namespace atelier
