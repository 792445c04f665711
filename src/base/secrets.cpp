#include "base/secrets.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/text.h"

namespace atelier {
namespace {

constexpr std::string_view kHidden = "***", kScheme = "://";

bool is_digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

// Of the word that begins a text: up to white space or a quotation mark.
size_t end_of_word(std::string_view text) {
  return std::min(text.find_first_of(" \t\r\n\"'<>`"), text.size());
}

// Bytes of the user and password that begin what follows "://", the @ not among them; 0: there are none.
// A password may hold the characters / ? # though it should not: then no number, a port, follows the colon.
size_t length_of_user(std::string_view url) {
  const std::string_view authority = url.substr(0, std::min(url.find_first_of("/?#"), url.size()));
  if (const auto at = authority.rfind('@'); at != std::string_view::npos) return at;
  const auto colon = authority.find(':');
  const auto at = url.rfind('@');
  if (colon == std::string_view::npos || at == std::string_view::npos) return 0;
  const std::string_view port = authority.substr(colon + 1);
  return !port.empty() && std::all_of(port.begin(), port.end(), is_digit) ? 0 : at;
}

bool is_secret(std::string_view parameter) {
  constexpr std::array<std::string_view, 6> kParts{"token",     "secret",     "passw",
                                                   "signature", "credential", "api_key"};
  constexpr std::array<std::string_view, 9> kWhole{"key", "apikey", "api-key", "sig",   "auth",
                                                   "pwd", "pass",   "jwt",     "bearer"};
  const std::string name = lower(parameter);
  return std::any_of(kParts.begin(), kParts.end(),
                     [&](auto part) { return name.find(part) != std::string::npos; }) ||
         std::find(kWhole.begin(), kWhole.end(), name) != kWhole.end();
}

// Of what follows the "?" or the "#" of a URL, where answers of a login stand, or a part of it.
std::string hide_parameters(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("?&;#"), text.size());
    const std::string_view pair = text.substr(0, end);
    const auto equals = pair.find('=');
    if (equals != std::string_view::npos && is_secret(pair.substr(0, equals))) {
      out.append(pair.substr(0, equals + 1)).append(kHidden);
    } else {
      out += pair;
    }
    if (end < text.size()) out += text[end];
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// What follows "://".
std::string hide_in_url(std::string_view url) {
  std::string out;
  if (const size_t user = length_of_user(url); user > 0) {
    out = kHidden;
    url.remove_prefix(user);
  }
  const size_t first = std::min(url.find_first_of("?#"), url.size());
  return out.append(url.substr(0, first)).append(hide_parameters(url.substr(first)));
}

}  // namespace

std::string hide_secrets(std::string_view text) {
  std::string out;
  for (size_t at = text.find(kScheme); at != std::string_view::npos; at = text.find(kScheme)) {
    at += kScheme.size();
    out += text.substr(0, at);
    text.remove_prefix(at);
    const size_t end = end_of_word(text);
    out += hide_in_url(text.substr(0, end));
    text.remove_prefix(end);
  }
  return out.append(text);
}

std::string hide_secrets_of_url(std::string_view url) {
  if (url.find(kScheme) != std::string_view::npos) return hide_secrets(url);
  const auto at = url.rfind('@');
  return at == std::string_view::npos ? hide_in_url(url) : std::string(kHidden) + hide_in_url(url.substr(at));
}

}  // namespace atelier
