#include "media/riff.h"

#include <algorithm>

namespace atelier::media {

void put_little(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint32_t get_little(std::string_view at, int bytes) {
  uint32_t value = 0;
  for (auto i = static_cast<size_t>(bytes); i-- > 0;) value = value << 8 | static_cast<uint8_t>(at[i]);
  return value;
}

std::string riff_chunk(std::string_view type, std::string_view data) {
  std::string out(type);
  put_little(out, data.size(), 4);
  out += data;
  if (data.size() % 2 != 0) out.push_back('\0');
  return out;
}

std::string extended_header(char flags, int width, int height) {
  std::string header(1, flags);
  put_little(header, 0, 3);
  put_little(header, static_cast<uint64_t>(width - 1), 3);
  put_little(header, static_cast<uint64_t>(height - 1), 3);
  return riff_chunk("VP8X", header);
}

RiffChunks::RiffChunks(std::string_view file) {
  if (file.size() < kRiffHeader) return;
  const size_t size = size_t{8} + get_little(file.substr(4), 4);
  is_whole = size <= file.size();
  rest_ = file.substr(kRiffHeader, size < kRiffHeader ? 0 : size - kRiffHeader);
}

RiffChunks RiffChunks::inside(std::string_view data) {
  RiffChunks out;
  out.is_whole = true;
  out.rest_ = data;
  return out;
}

bool RiffChunks::next() {
  if (rest_.size() < 8) return false;
  const size_t size = get_little(rest_.substr(4), 4);
  if (size > rest_.size() - 8) return is_whole = false;
  type = rest_.substr(0, 4);
  data = rest_.substr(8, size);
  all = rest_.substr(0, 8 + size);
  rest_.remove_prefix(std::min(rest_.size(), 8 + size + size % 2));
  return true;
}

}  // namespace atelier::media
