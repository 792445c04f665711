#include "request/adapters.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <iterator>

#include "base/error.h"
#include "base/text.h"

namespace atelier::request {
namespace {

// Takes "@expert" off the end of a text. A file's own name may end so as well.
std::string take_expert(std::string_view& text) {
  const size_t at = text.rfind('@');
  if (at == std::string_view::npos) return {};
  const auto word = trim(text.substr(at + 1));
  std::error_code error;
  if (!is_expert_name(word) || std::filesystem::exists(trim(text), error)) return {};
  text = text.substr(0, at);
  return std::string(word);
}

}  // namespace

bool is_expert_name(std::string_view text) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789_";
  return !text.empty() && text.find_first_not_of(kLetters) == std::string_view::npos;
}

AdapterRef adapter_ref(std::string_view text) {
  AdapterRef out{.expert = take_expert(text)};
  out.path = trim(text);
  if (const size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    if (const auto strength = to_number(trim(text.substr(colon + 1)))) {
      out.path = trim(text.substr(0, colon));
      out.strength = *strength;
      out.has_own_strength = true;
    }
  }
  constexpr double kMostStrength = 1000;
  if (out.has_own_strength && std::abs(out.strength) > kMostStrength) {
    throw Error(Kind::kUsage, str("lora: a strength of ", out.strength, " was asked for ", out.path,
                                  "; it is from -", kMostStrength, " to ", kMostStrength));
  }
  // A file that is there but for what stands behind its last colon.
  if (const size_t colon = out.path.rfind(':'); colon != std::string::npos && colon > 0) {
    std::error_code error;
    const std::string file = out.path.substr(0, colon);
    if (!std::filesystem::exists(out.path, error) && std::filesystem::is_regular_file(file, error)) {
      throw Error(Kind::kUsage, str("lora: the strength \"", out.path.substr(colon + 1), "\" of ", file,
                                    " is not a number"));
    }
  }
  if (out.path.empty()) throw Error(Kind::kUsage, "lora: an adapter is named as PATH[:strength][@expert]");
  return out;
}

std::vector<AdapterRef> adapter_refs(std::span<const std::string> texts) {
  std::vector<AdapterRef> out;
  for (std::string_view rest : texts) {
    for (bool has_more = true; has_more;) {
      const size_t end = rest.find(';');
      out.push_back(adapter_ref(rest.substr(0, end)));
      has_more = end != std::string_view::npos;
      if (has_more) rest.remove_prefix(end + 1);
    }
  }
  return out;
}

std::string to_string(const AdapterRef& ref) {
  char number[32];  // the shortest that reads as the same
  const auto end = std::to_chars(std::begin(number), std::end(number), ref.strength).ptr;
  return str(ref.path, ":", std::string_view(number, static_cast<size_t>(end - number)),
             ref.expert.empty() ? "" : "@", ref.expert);
}

}  // namespace atelier::request
