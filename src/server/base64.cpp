#include "server/base64.h"

#include <openssl/evp.h>

#include <algorithm>

namespace atelier::server {

std::string to_base64(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');  // OpenSSL ends it with a zero
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(length));
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string letters;
  letters.reserve(text.size());
  std::copy_if(text.begin(), text.end(), std::back_inserter(letters),
               [](char c) { return c != '\n' && c != '\r'; });
  if (letters.empty() || letters.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && letters[letters.size() - 1 - padding] == '=') ++padding;
  const size_t end = letters.find('=');
  if (end != std::string::npos && end < letters.size() - padding) return std::nullopt;
  std::string out(letters.size() / 4 * 3, '\0');
  const int length = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                     reinterpret_cast<const unsigned char*>(letters.data()),
                                     static_cast<int>(letters.size()));
  if (length < 0) return std::nullopt;
  out.resize(static_cast<size_t>(length) - padding);
  return out;
}

}  // namespace atelier::server
