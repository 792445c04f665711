// Writing and reading the two EXIF texts, and the UTF-16 that UserComment wants.
#include "media/exif.h"

#include <cstdint>
#include <vector>

namespace atelier::media {
namespace {

constexpr uint16_t kDescription = 0x010E, kOrientation = 0x0112, kSoftware = 0x0131, kExifFolder = 0x8769,
                   kUserComment = 0x9286;
constexpr uint16_t kAscii = 2, kLong = 4, kUndefined = 7;
constexpr std::string_view kUnicode{"UNICODE\0", 8}, kPlain{"ASCII\0\0\0", 8}, kUnset{"\0\0\0\0\0\0\0\0", 8};

void put16(std::string& out, uint32_t v) {
  out.push_back(char(v >> 8)), out.push_back(char(v));
}
void put32(std::string& out, uint32_t v) {
  put16(out, v >> 16), put16(out, v & 0xFFFF);
}

// One code point from the front of the text; U+FFFD for a byte that is not UTF-8.
uint32_t next_code_point(std::string_view& text) {
  const auto first = static_cast<uint8_t>(text[0]);
  const int extra = first < 0x80 ? 0 : first >> 5 == 6 ? 1 : first >> 4 == 14 ? 2 : first >> 3 == 30 ? 3 : -1;
  if (extra < 0 || text.size() <= static_cast<size_t>(extra)) return text.remove_prefix(1), 0xFFFD;
  uint32_t code = extra == 0 ? first : first & (0x3F >> extra);
  for (int i = 1; i <= extra; ++i) {
    const auto byte = static_cast<uint8_t>(text[static_cast<size_t>(i)]);
    if (byte >> 6 != 2) return text.remove_prefix(1), 0xFFFD;
    code = code << 6 | (byte & 0x3F);
  }
  text.remove_prefix(static_cast<size_t>(extra) + 1);
  return code > 0x10FFFF ? 0xFFFD : code;
}

std::string to_utf16(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const uint32_t code = next_code_point(text);
    if (code >= 0x10000) {
      put16(out, 0xD800 + ((code - 0x10000) >> 10));
      put16(out, 0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
      put16(out, code);
    }
  }
  return out;
}

void put_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out.push_back(char(code));
  } else if (code < 0x800) {
    out += {char(0xC0 | code >> 6), char(0x80 | (code & 0x3F))};
  } else if (code < 0x10000) {
    out += {char(0xE0 | code >> 12), char(0x80 | (code >> 6 & 0x3F)), char(0x80 | (code & 0x3F))};
  } else {
    out += {char(0xF0 | code >> 18), char(0x80 | (code >> 12 & 0x3F)), char(0x80 | (code >> 6 & 0x3F)),
            char(0x80 | (code & 0x3F))};
  }
}

// Reads of a TIFF structure; every one is checked against the block's end and gives 0 beyond it.
class Tiff {
 public:
  Tiff(std::string_view bytes, bool is_big) : bytes_(bytes), is_big_(is_big) {}
  uint32_t u16(uint64_t at) const {
    return is_big_ ? byte(at) << 8 | byte(at + 1) : byte(at + 1) << 8 | byte(at);
  }
  uint32_t u32(uint64_t at) const {
    return is_big_ ? u16(at) << 16 | u16(at + 2) : u16(at + 2) << 16 | u16(at);
  }
  // Offset of the 12-byte entry of a tag in the folder at this offset.
  std::optional<uint64_t> find(uint64_t folder, uint16_t tag) const {
    const uint32_t count = u16(folder);
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t entry = folder + 2 + 12ULL * i;
      if (entry + 12 > bytes_.size()) break;
      if (u16(entry) == tag) return entry;
    }
    return std::nullopt;
  }
  // Bytes of an entry of one-byte elements; empty if they lie outside of the block.
  std::string_view value(uint64_t entry) const {
    const uint64_t size = u32(entry + 4), at = size <= 4 ? entry + 8 : u32(entry + 8);
    return at + size <= bytes_.size() ? bytes_.substr(at, size) : std::string_view();
  }

 private:
  uint32_t byte(uint64_t at) const { return at < bytes_.size() ? static_cast<uint8_t>(bytes_[at]) : 0; }
  std::string_view bytes_;
  bool is_big_;
};

std::string from_utf16(std::string_view text, bool is_big) {
  const Tiff words(text, is_big);
  std::string out;
  for (uint64_t i = 0; i + 1 < text.size(); i += 2) {
    uint32_t code = words.u16(i);
    const uint32_t low = words.u16(i + 2);
    if (code >> 10 == 0x36 && low >> 10 == 0x37) {
      code = 0x10000 + ((code & 0x3FF) << 10 | (low & 0x3FF));
      i += 2;
    } else if (code >> 11 == 0x1B) {
      code = 0xFFFD;
    }
    put_utf8(out, code);
  }
  return out;
}

std::string comment_text(std::string_view value, bool is_big) {
  if (value.starts_with(kUnicode)) return from_utf16(value.substr(8), is_big);
  if (value.starts_with(kPlain) || value.starts_with(kUnset)) value.remove_prefix(8);
  return std::string(value.substr(0, value.find('\0')));
}

struct Entry {
  uint16_t tag, type;
  std::string value;
};

// A folder at `offset`, its long values behind it.
std::string folder(uint32_t offset, const std::vector<Entry>& entries) {
  std::string out, values;
  const auto values_at = offset + 2 + 12 * static_cast<uint32_t>(entries.size()) + 4;
  put16(out, static_cast<uint32_t>(entries.size()));
  for (const Entry& e : entries) {
    put16(out, e.tag);
    put16(out, e.type);
    put32(out, e.type == kLong ? 1 : static_cast<uint32_t>(e.value.size()));
    if (e.value.size() <= 4) {
      out += e.value + std::string(4 - e.value.size(), '\0');
      continue;
    }
    put32(out, values_at + static_cast<uint32_t>(values.size()));
    values += e.value;
    if (values.size() % 2 != 0) values.push_back('\0');
  }
  put32(out, 0);
  return out + values;
}

std::string_view without_prefix(std::string_view block) {
  if (block.starts_with(std::string_view("Exif\0\0", 6))) block.remove_prefix(6);
  return block;
}

bool is_big_endian(std::string_view block) {
  return block.starts_with("MM");
}

bool is_tiff(std::string_view block) {
  return is_big_endian(block) || block.starts_with("II");
}

}  // namespace

int orientation_of(std::string_view any) {
  constexpr uint16_t kShort = 3;
  const auto block = without_prefix(any);
  if (!is_tiff(block)) return 1;
  const Tiff tiff(block, is_big_endian(block));
  const auto entry = tiff.find(tiff.u32(4), kOrientation);
  if (!entry || tiff.u16(*entry + 2) != kShort) return 1;
  const uint32_t found = tiff.u16(*entry + 8);
  return found >= 1 && found <= 8 ? static_cast<int>(found) : 1;
}

std::string write_exif(const Texts& texts) {
  std::vector<Entry> first;
  if (!texts.json.empty()) first.push_back({kDescription, kAscii, texts.json + '\0'});
  first.push_back({kSoftware, kAscii, std::string("Atelier\0", 8)});
  if (!texts.parameters.empty()) first.push_back({kExifFolder, kLong, std::string(4, '\0')});
  std::string out("MM\0\x2A\0\0\0\x08", 8);
  const auto second_at = static_cast<uint32_t>(out.size() + folder(8, first).size());
  if (texts.parameters.empty()) return out + folder(8, first);
  first.back().value.clear();
  put32(first.back().value, second_at);
  return out + folder(8, first) +
         folder(second_at, {{kUserComment, kUndefined, std::string(kUnicode) + to_utf16(texts.parameters)}});
}

std::optional<Texts> read_exif(std::string_view any) {
  const auto block = without_prefix(any);
  if (!is_tiff(block)) return std::nullopt;
  const bool is_big = is_big_endian(block);
  const Tiff tiff(block, is_big);
  Texts texts;
  const uint64_t first = tiff.u32(4);
  if (const auto entry = tiff.find(first, kDescription)) {
    const std::string_view value = tiff.value(*entry);
    texts.json = value.substr(0, value.find('\0'));
  }
  if (const auto entry = tiff.find(first, kExifFolder)) {
    if (const auto comment = tiff.find(tiff.u32(*entry + 8), kUserComment)) {
      texts.parameters = comment_text(tiff.value(*comment), is_big);
    }
  }
  if (texts.json.empty() && texts.parameters.empty()) return std::nullopt;
  return texts;
}

std::string cut_text(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  size_t end = bytes < 3 ? 0 : bytes - 3;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

}  // namespace atelier::media
