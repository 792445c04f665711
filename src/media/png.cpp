// PNG by libpng. libpng leaves by longjmp, so the functions that hold a setjmp own nothing that needs a
// destructor.
#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "base/error.h"
#include "media/codecs.h"

namespace atelier::media {
namespace {

constexpr size_t kSignature = 8, kChunkFrame = 12;

struct Sink {
  std::string bytes, error;
};

struct Source {
  std::string_view bytes;
  std::string error;
};

void on_write(png_structp png, png_bytep data, size_t size) {
  try {
    static_cast<Sink*>(png_get_io_ptr(png))->bytes.append(reinterpret_cast<const char*>(data), size);
  } catch (const std::exception&) {
    png_error(png, "out of memory");
  }
}

void on_read(png_structp png, png_bytep data, size_t size) {
  auto& source = *static_cast<Source*>(png_get_io_ptr(png));
  if (source.bytes.size() < size) png_error(png, "the file ends too early");
  std::memcpy(data, source.bytes.data(), size);
  source.bytes.remove_prefix(size);
}

void on_error(png_structp png, png_const_charp message) {
  static_cast<std::string*>(png_get_error_ptr(png))->assign(message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

// Latin-1 text chunks are the ones that every reader knows; what is not ASCII needs the UTF-8 kind.
void set_text(png_structp png, png_infop info, const char* key, const std::string& text) {
  if (text.empty()) return;
  png_text chunk{};
  const bool is_ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
  chunk.compression = is_ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
  chunk.key = const_cast<char*>(key);
  chunk.text = const_cast<char*>(text.c_str());
  (is_ascii ? chunk.text_length : chunk.itxt_length) = text.size();
  png_set_text(png, info, &chunk, 1);
}

bool write_png(png_structp png, png_infop info, const Image& picture, const Texts& texts) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_user_limits(png, 1000000, 1000000);
  // speed first: one fixed filter spares libpng its search, and the fastest level is close behind the others
  // on drawn pictures time
  png_set_compression_level(png, 1);
  png_set_filter(png, 0, PNG_FILTER_SUB);
  png_set_compression_buffer_size(png, 1 << 18);
  png_set_IHDR(png, info, static_cast<png_uint_32>(picture.width), static_cast<png_uint_32>(picture.height),
               8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  set_text(png, info, "parameters", texts.parameters);
  set_text(png, info, "atelier", texts.json);
  png_write_info(png, info);
  for (int row = 0; row < picture.height; ++row) {
    png_write_row(
        png, picture.rgb.data() + size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(row));
  }
  png_write_end(png, nullptr);
  return true;
}

// Reads the header and asks for 8-bit RGB.
bool read_header(png_structp png, png_infop info, int& passes) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_user_limits(png, 1000000, 1000000);
  png_read_info(png, info);
  png_set_expand(png);
  png_set_scale_16(png);
  png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  return true;
}

bool read_rows(png_structp png, Image& picture, int passes) {
  if (setjmp(png_jmpbuf(png))) return false;
  for (int pass = 0; pass < passes; ++pass) {
    for (int row = 0; row < picture.height; ++row) {
      png_read_row(
          png, picture.rgb.data() + size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(row),
          nullptr);
    }
  }
  png_read_end(png, nullptr);
  return true;
}

// Walks the chunks of a file from the front.
class Chunks {
 public:
  explicit Chunks(std::string_view bytes) : rest_(bytes.substr(std::min(kSignature, bytes.size()))) {}
  // False at the end, or where a chunk would reach beyond it.
  bool next() {
    if (rest_.size() < kChunkFrame) return false;
    const size_t size = u32(rest_);
    if (size > rest_.size() - kChunkFrame) return false;
    type = rest_.substr(4, 4);
    data = rest_.substr(8, size);
    const auto* start = reinterpret_cast<const Bytef*>(rest_.data() + 4);
    is_sound = crc32_z(0, start, size + 4) == u32(rest_.substr(8 + size));
    rest_.remove_prefix(size + kChunkFrame);
    return true;
  }
  static uint32_t u32(std::string_view at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(at[i]);
    return value;
  }
  std::string_view type, data;
  bool is_sound = false;

 private:
  std::string_view rest_;
};

// The text behind the fields that an iTXt chunk has between keyword and text; compressed ones are not read.
std::optional<std::string_view> international_text(std::string_view rest) {
  if (rest.size() < 2 || rest[0] != 0) return std::nullopt;
  rest.remove_prefix(2);
  for (int field = 0; field < 2; ++field) {  // language, translated keyword
    const size_t end = rest.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    rest.remove_prefix(end + 1);
  }
  return rest;
}

}  // namespace

std::string encode_png(const Image& picture, const Texts& texts) {
  Sink sink;
  sink.bytes.reserve(picture.rgb.size() / 2 + 1024);
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &sink.error, on_error, on_warning);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) {
    png_destroy_write_struct(&png, nullptr);
    throw Error(Kind::kItem, "libpng has no memory to write a picture");
  }
  png_set_write_fn(png, &sink, on_write, nullptr);
  const bool ok = write_png(png, info, picture, texts);
  png_destroy_write_struct(&png, &info);
  if (!ok) throw Error(Kind::kItem, "cannot write a PNG: " + sink.error);
  return std::move(sink.bytes);
}

Image decode_png(std::string_view bytes) {
  Source source{bytes, {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source.error, on_error, on_warning);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    throw Error(Kind::kItem, "libpng has no memory to read a picture");
  }
  struct Guard {
    png_structp* png;
    png_infop* info;
    ~Guard() { png_destroy_read_struct(png, info, nullptr); }
  } guard{&png, &info};
  png_set_read_fn(png, &source, on_read);
  int passes = 1;
  if (!read_header(png, info, passes)) damaged("PNG", source.error);
  check_size(png_get_image_width(png, info), png_get_image_height(png, info), "PNG");
  Image picture{static_cast<int>(png_get_image_width(png, info)),
                static_cast<int>(png_get_image_height(png, info)),
                {}};
  if (png_get_rowbytes(png, info) != size_t{3} * static_cast<size_t>(picture.width)) {
    damaged("PNG", "its rows do not become RGB");
  }
  picture.rgb.resize(size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height));
  if (!read_rows(png, picture, passes)) damaged("PNG", source.error);
  return picture;
}

std::optional<Texts> texts_of_png(std::string_view bytes) {
  Texts texts;
  for (Chunks chunk(bytes); chunk.next() && chunk.type != "IEND";) {
    if (chunk.type != "tEXt" && chunk.type != "iTXt") continue;
    const size_t end = chunk.data.find('\0');
    if (end == std::string_view::npos) continue;
    const std::string_view key = chunk.data.substr(0, end);
    std::optional<std::string_view> text = chunk.data.substr(end + 1);
    if (chunk.type == "iTXt") text = international_text(*text);
    if (text && key == "parameters") texts.parameters = *text;
    if (text && key == "atelier") texts.json = *text;
  }
  if (texts.parameters.empty() && texts.json.empty()) return std::nullopt;
  return texts;
}

std::string_view exif_of_png(std::string_view bytes) {
  for (Chunks chunk(bytes); chunk.next() && chunk.type != "IEND";) {
    if (chunk.type == "eXIf") return chunk.data;
  }
  return {};
}

bool is_complete_png(std::string_view bytes) {
  bool has_header = false, has_data = false;
  for (Chunks chunk(bytes); chunk.next();) {
    if (!chunk.is_sound) return false;
    if (chunk.type == "IHDR") {
      has_header =
          chunk.data.size() == 13 && Chunks::u32(chunk.data) > 0 && Chunks::u32(chunk.data.substr(4)) > 0;
    }
    has_data = has_data || (chunk.type == "IDAT" && !chunk.data.empty());
    if (chunk.type == "IEND") return has_header && has_data;
  }
  return false;
}

}  // namespace atelier::media
