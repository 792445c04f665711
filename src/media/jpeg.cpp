// JPEG by libjpeg. libjpeg leaves by longjmp, so the functions that hold a setjmp own nothing that needs a
// destructor.
#include <cstddef>
#include <cstdio>

// jpeglib.h needs the two headers above, in front of it
#include <jerror.h>
#include <jpeglib.h>

#include <csetjmp>
#include <cstdlib>

#include "base/error.h"
#include "media/codecs.h"
#include "media/exif.h"

namespace atelier::media {
namespace {

constexpr int kMaxScans = 200;  // a small progressive file with thousands of scans would take minutes

struct Errors {
  jpeg_error_mgr base;  // first, so that the library's pointer is ours
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

void on_error(j_common_ptr jpeg) {
  auto* errors = reinterpret_cast<Errors*>(jpeg->err);
  (*jpeg->err->format_message)(jpeg, errors->message);
  std::longjmp(errors->jump, 1);
}

// Warnings are for files that can still be shown; one that ends too early would be shown half grey.
void on_message(j_common_ptr jpeg, int level) {
  const int code = jpeg->err->msg_code;
  if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) on_error(jpeg);
}

void on_progress(j_common_ptr jpeg) {
  auto* reader = reinterpret_cast<j_decompress_ptr>(jpeg);
  if (reader->input_scan_number > kMaxScans) ERREXIT1(jpeg, JERR_BAD_PROGRESSION, kMaxScans);
}

void set_errors(Errors& errors, j_common_ptr jpeg) {
  jpeg->err = jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  errors.message[0] = '\0';
}

struct Buffer {
  unsigned char* data = nullptr;
  unsigned long size = 0;
  ~Buffer() { std::free(data); }
};

bool write_jpeg(jpeg_compress_struct& jpeg, Errors& errors, const Image& picture, int quality,
                const std::string& exif, Buffer& out) {
  if (setjmp(errors.jump)) return false;
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, &out.data, &out.size);
  jpeg.image_width = static_cast<JDIMENSION>(picture.width);
  jpeg.image_height = static_cast<JDIMENSION>(picture.height);
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, quality, TRUE);
  jpeg_start_compress(&jpeg, TRUE);
  if (!exif.empty()) {
    jpeg_write_marker(&jpeg, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(exif.data()),
                      static_cast<unsigned>(exif.size()));
  }
  while (jpeg.next_scanline < jpeg.image_height) {
    const size_t row = size_t{3} * static_cast<size_t>(picture.width) * jpeg.next_scanline;
    JSAMPROW line = const_cast<JSAMPROW>(picture.rgb.data() + row);
    jpeg_write_scanlines(&jpeg, &line, 1);
  }
  jpeg_finish_compress(&jpeg);
  return true;
}

bool read_header(jpeg_decompress_struct& jpeg, Errors& errors, std::string_view bytes) {
  if (setjmp(errors.jump)) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()),
               static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&jpeg, TRUE);
  // libjpeg does not turn CMYK into RGB
  jpeg.out_color_space = jpeg.num_components == 4 ? JCS_CMYK : JCS_RGB;
  return true;
}

bool read_rows(jpeg_decompress_struct& jpeg, Errors& errors, std::vector<uint8_t>& samples) {
  if (setjmp(errors.jump)) return false;
  jpeg_start_decompress(&jpeg);
  const size_t stride = static_cast<size_t>(jpeg.output_width) * static_cast<size_t>(jpeg.output_components);
  if (samples.size() != stride * jpeg.output_height) ERREXIT(&jpeg, JERR_BAD_LENGTH);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW line = samples.data() + stride * jpeg.output_scanline;
    jpeg_read_scanlines(&jpeg, &line, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

// Adobe writes CMYK inverted, and everyone follows.
std::vector<uint8_t> cmyk_to_rgb(const std::vector<uint8_t>& cmyk, bool is_inverted) {
  std::vector<uint8_t> rgb(cmyk.size() / 4 * 3);
  for (size_t i = 0; i < cmyk.size() / 4; ++i) {
    const auto ink = [&](size_t c) { return is_inverted ? cmyk[4 * i + c] : 255 - cmyk[4 * i + c]; };
    for (size_t c = 0; c < 3; ++c) rgb[3 * i + c] = static_cast<uint8_t>(ink(c) * ink(3) / 255);
  }
  return rgb;
}

// Walks the segments in front of the picture data.
class Segments {
 public:
  explicit Segments(std::string_view bytes) : bytes_(bytes) {}
  // False at the first scan, or where the structure ends.
  bool next() {
    while (at_ + 1 < bytes_.size() && byte(at_) == 0xFF && byte(at_ + 1) == 0xFF) ++at_;
    if (at_ + 4 > bytes_.size() || byte(at_) != 0xFF) return false;
    marker = byte(at_ + 1);
    const size_t size = byte(at_ + 2) << 8 | byte(at_ + 3);
    if (size < 2 || at_ + 2 + size > bytes_.size()) return false;
    data = bytes_.substr(at_ + 4, size - 2);
    at_ += 2 + size;
    return true;
  }
  size_t position() const { return at_; }
  unsigned marker = 0;
  std::string_view data;

 private:
  unsigned byte(size_t at) const { return static_cast<uint8_t>(bytes_[at]); }
  std::string_view bytes_;
  size_t at_ = 2;
};

constexpr unsigned kStartOfScan = 0xDA;

bool is_frame(unsigned marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

}  // namespace

std::string encode_jpeg(const Image& picture, int quality, const Texts& texts) {
  std::string exif;
  if (!texts.parameters.empty() || !texts.json.empty()) exif = std::string("Exif\0\0", 6) + write_exif(texts);
  jpeg_compress_struct jpeg{};
  Errors errors;
  set_errors(errors, reinterpret_cast<j_common_ptr>(&jpeg));
  Buffer out;
  const bool ok = write_jpeg(jpeg, errors, picture, quality, exif, out);
  jpeg_destroy_compress(&jpeg);
  if (!ok) throw Error(Kind::kItem, str("cannot write a JPEG: ", errors.message));
  return std::string(reinterpret_cast<const char*>(out.data), out.size);
}

Image decode_jpeg(std::string_view bytes) {
  jpeg_decompress_struct jpeg{};
  Errors errors;
  set_errors(errors, reinterpret_cast<j_common_ptr>(&jpeg));
  struct Guard {
    jpeg_decompress_struct& jpeg;
    ~Guard() { jpeg_destroy_decompress(&jpeg); }
  } guard{jpeg};
  if (!read_header(jpeg, errors, bytes)) damaged("JPEG", errors.message);
  jpeg_progress_mgr progress{};
  progress.progress_monitor = on_progress;
  jpeg.progress = &progress;
  check_size(jpeg.image_width, jpeg.image_height, "JPEG");
  Image picture{static_cast<int>(jpeg.image_width), static_cast<int>(jpeg.image_height), {}};
  const size_t channels = jpeg.out_color_space == JCS_CMYK ? 4 : 3;
  picture.rgb.resize(channels * static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height));
  if (!read_rows(jpeg, errors, picture.rgb)) damaged("JPEG", errors.message);
  if (channels == 4) picture.rgb = cmyk_to_rgb(picture.rgb, jpeg.saw_Adobe_marker != 0);
  return picture;
}

std::string_view exif_of_jpeg(std::string_view bytes) {
  for (Segments segment(bytes); segment.next() && segment.marker != kStartOfScan;) {
    if (segment.marker == 0xE1 && segment.data.starts_with("Exif")) return segment.data;
  }
  return {};
}

std::optional<Texts> texts_of_jpeg(std::string_view bytes) {
  return read_exif(exif_of_jpeg(bytes));
}

bool is_complete_jpeg(std::string_view bytes) {
  bool has_frame = false;
  Segments segment(bytes);
  while (segment.next() && segment.marker != kStartOfScan) has_frame = has_frame || is_frame(segment.marker);
  // in entropy-coded data 0xFF is followed by 0 or a restart marker, so the last two bytes are the end or are
  // not
  return has_frame && segment.marker == kStartOfScan && bytes.size() >= segment.position() + 2 &&
         bytes.substr(bytes.size() - 2) == "\xFF\xD9";
}

}  // namespace atelier::media
