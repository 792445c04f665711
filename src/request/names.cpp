// Naming rules of output files.
#include "request/names.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"

namespace atelier::request {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxPart = 240;  // file systems end at 255 bytes

std::string sub_text(std::optional<int> sub) {
  if (!sub) return {};
  char text[16];
  std::snprintf(text, sizeof text, "_%02d", *sub);
  return text;
}

[[noreturn]] void refuse(std::string_view name, std::string_view rule) {
  throw Error(Kind::kItem, str("the output name ", in_quotes(is_utf8(name) ? name : "?"), " ", rule));
}

}  // namespace

std::string numbered_name(std::string_view name, size_t number) {
  const fs::path path(name);
  const auto file = str(path.stem().string(), "-", number, path.extension().string());
  return fs::path(path).replace_filename(file).string();
}

std::string default_name(int64_t index, std::optional<int> sub, std::string_view suffix) {
  char text[32];
  std::snprintf(text, sizeof text, "%06lld", static_cast<long long>(index));
  return text + sub_text(sub) + std::string(suffix);
}

void check_name(std::string_view name) {
  if (name.empty()) refuse(name, "is empty");
  if (!is_utf8(name)) refuse(name, "is not UTF-8");
  if (name.front() == '/') refuse(name, "is absolute: names are relative to the output folder");
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) refuse(name, "holds a control character");
  }
  for (const fs::path& part : fs::path(name)) {
    const std::string text = part.string();
    if (text == "..") refuse(name, "leaves the output folder by \"..\"");
    if (text.empty()) refuse(name, "ends with a slash: it needs a file name");
    if (text.size() > kMaxPart) refuse(name, str("has a part longer than ", kMaxPart, " bytes"));
    if (text.starts_with(kTemporaryPrefix))
      refuse(name, str("begins with ", kTemporaryPrefix, ", which temporary files use"));
  }
}

std::string custom_name(std::string_view name, std::optional<int> sub, std::string_view suffix,
                        std::span<const std::string_view> kept) {
  check_name(name);
  const fs::path path = fs::path(name).lexically_normal();
  if (!path.has_filename() || path == ".") refuse(name, "needs a file name");
  std::string base = path.string();
  std::string end = lower(path.extension().string());
  if (end == suffix || std::find(kept.begin(), kept.end(), end) != kept.end()) {
    base.resize(base.size() - end.size());
  } else {
    end = suffix;
  }
  std::string result = base + sub_text(sub) + end;
  check_name(result);
  return result;
}

}  // namespace atelier::request
