#include "base/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <fstream>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/error.h"

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

std::string sha256_of_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(Kind::kUsage, "cannot read " + file.string());
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  ENSURE(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  std::vector<char> part(1 << 20);
  while (in.read(part.data(), static_cast<std::streamsize>(part.size())), in.gcount() > 0)
    ENSURE(EVP_DigestUpdate(context.get(), part.data(), static_cast<size_t>(in.gcount())) == 1);
  if (in.bad()) throw Error(Kind::kUsage, "cannot read " + file.string());
  Raw raw{};
  unsigned size = 0;
  ENSURE(EVP_DigestFinal_ex(context.get(), raw.data(), &size) == 1);
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
