#include "base/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>

#include "base/check.h"

namespace atelier {
namespace {

using Raw = std::array<unsigned char, EVP_MAX_MD_SIZE>;

std::string digits(const Raw& raw, unsigned size) {
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += "0123456789abcdef"[raw[i] >> 4];
    text += "0123456789abcdef"[raw[i] & 15];
  }
  return text;
}

}  // namespace

std::string sha256(std::string_view bytes) {
  Raw raw{};
  unsigned size = 0;
  ENSURE(EVP_Digest(bytes.data(), bytes.size(), raw.data(), &size, EVP_sha256(), nullptr) == 1);
  return digits(raw, size);
}

std::string hmac_sha256(std::string_view key, std::string_view bytes) {
  Raw raw{};
  unsigned size = 0;
  ENSURE(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
              reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), raw.data(),
              &size) != nullptr);
  return digits(raw, size);
}

}  // namespace atelier
