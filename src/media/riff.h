// The container of WebP files: chunks of a type and a size. [WebP container specification, RFC
// 9649 section 2]
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace atelier::media {

inline constexpr size_t kRiffHeader = 12;  // "RIFF", a size, "WEBP"
// Flags of the VP8X chunk.
inline constexpr char kAnimationFlag = 0x02, kExifFlag = 0x08, kAlphaFlag = 0x10;

// As libwebp takes it.
inline const uint8_t* raw(std::string_view bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

void put_little(std::string& out, uint64_t value, int bytes);
uint32_t get_little(std::string_view at, int bytes);  // of at least so many
std::string riff_chunk(std::string_view type, std::string_view data);
// A VP8X chunk: what the file holds, and the size of its canvas.
std::string extended_header(char flags, int width, int height);

// Walks the chunks of a file, or of a chunk, from the front.
class RiffChunks {
 public:
  // Of a whole file.
  explicit RiffChunks(std::string_view file);
  // Of what is inside a chunk.
  static RiffChunks inside(std::string_view data);
  bool next();
  bool is_whole = false;  // the file is as long as it and its chunks so far say
  std::string_view type, data;
  std::string_view all;  // with the header of the chunk, without its padding

 private:
  RiffChunks() = default;
  std::string_view rest_;
};

}  // namespace atelier::media
