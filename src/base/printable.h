// Text for a terminal or a log: whatever a file or a request put into it.
#pragma once
#include <string>
#include <string_view>

namespace atelier {

// The text with every control character but line ends and tabs, and every byte that is not UTF-8, as "\x1b":
// nobody else's escape codes reach a terminal. Credentials of URLs are hidden (base/secrets.h).
std::string printable(std::string_view text);

}  // namespace atelier
