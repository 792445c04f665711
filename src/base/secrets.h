// Credentials in addresses, which no message, log or listing may show.
#pragma once
#include <string>
#include <string_view>

namespace atelier {

// The text with "***" in place of what stands before the @ of every URL, and of the values of such of its
// parameters as are called token, key, password, signature and the like: "https://***@host/?token=***".
std::string hide_secrets(std::string_view text);
// The same for a text that is to be a URL, whether it has "://" or not: "***@host".
std::string hide_secrets_of_url(std::string_view url);

}  // namespace atelier
