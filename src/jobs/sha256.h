// SHA-256 of bytes in memory, for the ledger; this room links no cryptographic library.
#pragma once
#include <string>
#include <string_view>

namespace atelier::jobs {

// 64 hexadecimal digits. [FIPS 180-4]
std::string sha256(std::string_view bytes);

}  // namespace atelier::jobs
