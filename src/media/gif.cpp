// Reads GIF. [GIF89a] Every size is checked before it is used.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "media/animation.h"
#include "media/riff.h"

namespace atelier::media {
namespace {

constexpr size_t kScreen = 13;  // signature and logical screen
constexpr uint8_t kExtension = 0x21, kImage = 0x2c, kTrailer = 0x3b;
constexpr uint8_t kControl = 0xf9, kComment = 0xfe;

[[noreturn]] void cut_off() {
  damaged("GIF", "it ends too early");
}

// The bytes of a file from the front.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  std::string_view take(size_t n) {
    if (n > rest_.size()) cut_off();
    const auto out = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return out;
  }
  uint8_t byte() { return static_cast<uint8_t>(take(1)[0]); }
  int number() { return static_cast<int>(get_little(take(2), 2)); }
  std::string_view colours(uint8_t flags) {
    return (flags & 0x80) != 0 ? take(size_t{3} << ((flags & 7) + 1)) : std::string_view{};
  }
  std::string blocks() {
    std::string out;
    while (const uint8_t size = byte()) out += take(size);
    return out;
  }
  void skip_blocks() {
    while (const uint8_t size = byte()) take(size);
  }

 private:
  std::string_view rest_;
};

// What is said before a picture about how it is shown.
struct Control {
  int hundredths = 0, disposal = 0, transparent = -1;
};

struct GifFrame {
  int left = 0, top = 0, width = 0, height = 0;
  bool is_interlaced = false;
  std::string_view colours;
  std::vector<uint8_t> pixels;  // indices
};

// [GIF89a appendix F]
class LzwReader {
 public:
  LzwReader(int bits, std::string_view data) : bits_(bits), data_(data) {
    if (bits < 1 || bits > 8) damaged("GIF", "its codes have a width that cannot be");
  }
  std::vector<uint8_t> unpack(size_t pixels) {
    std::vector<uint8_t> out;
    out.reserve(pixels);
    const int clear = 1 << bits_, end = clear + 1;
    int width = bits_ + 1, next = end + 1, last = -1;
    while (out.size() < pixels) {
      const int code = take(width);
      if (code == clear) {
        width = bits_ + 1, next = end + 1, last = -1;
        continue;
      }
      if (code == end || code > next || (last < 0 && code >= clear)) damaged("GIF", "a frame is not whole");
      if (last >= 0 && next < 4096) {
        prefix_[static_cast<size_t>(next)] = static_cast<uint16_t>(last);
        suffix_[static_cast<size_t>(next)] = first_of(code == next ? last : code, clear);
        ++next;
        if (next == 1 << width && width < 12) ++width;
      } else if (code >= next) {
        damaged("GIF", "a frame is not whole");
      }
      append(out, code, clear, pixels);
      last = code;
    }
    return out;
  }

 private:
  int take(int width) {
    while (waiting_bits_ < width) {
      if (data_.empty()) cut_off();
      waiting_ |= static_cast<uint32_t>(static_cast<uint8_t>(data_[0])) << waiting_bits_;
      data_.remove_prefix(1);
      waiting_bits_ += 8;
    }
    const auto code = static_cast<int>(waiting_ & ((1u << width) - 1));
    waiting_ >>= width, waiting_bits_ -= width;
    return code;
  }
  uint8_t first_of(int code, int clear) const {
    while (code >= clear) code = prefix_[static_cast<size_t>(code)];
    return static_cast<uint8_t>(code);
  }
  void append(std::vector<uint8_t>& out, int code, int clear, size_t most) {
    const auto begin = static_cast<std::ptrdiff_t>(out.size());
    for (; code >= clear; code = prefix_[static_cast<size_t>(code)])
      out.push_back(suffix_[static_cast<size_t>(code)]);
    out.push_back(static_cast<uint8_t>(code));
    std::reverse(out.begin() + begin, out.end());
    if (out.size() > most) out.resize(most);
  }

  int bits_;
  std::string_view data_;
  std::array<uint16_t, 4096> prefix_{};
  std::array<uint8_t, 4096> suffix_{};
  uint32_t waiting_ = 0;
  int waiting_bits_ = 0;
};

GifFrame read_frame(Reader& reader, std::string_view colours, const AnimationFacts& screen) {
  GifFrame f{reader.number(), reader.number(), reader.number(), reader.number()};
  const uint8_t flags = reader.byte();
  f.is_interlaced = (flags & 0x40) != 0;
  const auto own = reader.colours(flags);
  f.colours = own.empty() ? colours : own;
  if (f.width < 1 || f.height < 1 || f.left + f.width > screen.width || f.top + f.height > screen.height)
    damaged("GIF", "a frame is larger than the animation");
  const int bits = reader.byte();
  const std::string data = reader.blocks();
  f.pixels = LzwReader(bits, data).unpack(static_cast<size_t>(f.width) * static_cast<size_t>(f.height));
  return f;
}

// Rows of an interlaced picture come in four passes. [GIF89a appendix E]
std::vector<int> rows_of(const GifFrame& f) {
  std::vector<int> rows;
  if (!f.is_interlaced) {
    for (int y = 0; y < f.height; ++y) rows.push_back(y);
    return rows;
  }
  for (const auto& [first, step] : {std::pair{0, 8}, {4, 8}, {2, 4}, {1, 2}}) {
    for (int y = first; y < f.height; y += step) rows.push_back(y);
  }
  return rows;
}

std::vector<uint8_t> rgba_of(const GifFrame& f, int transparent) {
  std::vector<uint8_t> out(size_t{4} * f.pixels.size());
  const auto rows = rows_of(f);
  for (size_t y = 0; y < rows.size(); ++y) {
    for (size_t x = 0; x < static_cast<size_t>(f.width); ++x) {
      const size_t index = f.pixels[y * static_cast<size_t>(f.width) + x];
      uint8_t* to = &out[size_t{4} * (static_cast<size_t>(rows[y]) * static_cast<size_t>(f.width) + x)];
      if (3 * index + 2 < f.colours.size()) std::copy_n(&f.colours[3 * index], 3, to);
      to[3] = static_cast<int>(index) == transparent ? 0 : 255;
    }
  }
  return out;
}

Control read_control(const std::string& data) {
  if (data.size() < 4) damaged("GIF", "an extension is too short");
  const auto flags = static_cast<uint8_t>(data[0]);
  return {static_cast<int>(get_little(std::string_view(data).substr(1), 2)), flags >> 2 & 7,
          (flags & 1) != 0 ? static_cast<uint8_t>(data[3]) : -1};
}

bool is_gif(std::string_view bytes) {
  return bytes.starts_with("GIF87a") || bytes.starts_with("GIF89a");
}

}  // namespace

AnimationFacts read_gif(std::string_view bytes, const TakeFrame& take) {
  Reader reader(bytes);
  const auto screen = reader.take(kScreen);
  AnimationFacts facts;
  facts.width = static_cast<int>(get_little(screen.substr(6), 2));
  facts.height = static_cast<int>(get_little(screen.substr(8), 2));
  check_size(facts.width, facts.height, "GIF");
  const auto colours = reader.colours(static_cast<uint8_t>(screen[10]));
  Canvas canvas(facts.width, facts.height);
  Control control;
  int64_t hundredths = 0;
  for (;;) {
    const uint8_t kind = reader.byte();
    if (kind == kTrailer) break;
    if (kind == kExtension) {
      const bool is_control = reader.byte() == kControl;
      if (is_control) control = read_control(reader.blocks());
      if (!is_control) reader.skip_blocks();
      continue;
    }
    if (kind != kImage) damaged("GIF", "it holds something unknown");
    const GifFrame f = read_frame(reader, colours, facts);
    const Image before = control.disposal == 3 ? canvas.picture() : Image{};
    canvas.draw(rgba_of(f, control.transparent), f.left, f.top, f.width, f.height, true);
    ++facts.frames, hundredths += control.hundredths;
    if (!take(canvas.picture())) return facts.at_rate(static_cast<double>(hundredths) / 100);
    if (control.disposal == 2) canvas.clear(f.left, f.top, f.width, f.height);
    if (control.disposal == 3) canvas.restore(before);
    control = {};
  }
  if (facts.frames == 0) damaged("GIF", "it holds no picture");
  return facts.at_rate(static_cast<double>(hundredths) / 100);
}

namespace {

// Walks a file without unpacking it; whether it is whole.
bool walk(std::string_view bytes, std::vector<std::string>& comments) {
  if (!is_gif(bytes)) return false;
  bool has_picture = false;
  try {
    Reader reader(bytes);
    reader.colours(static_cast<uint8_t>(reader.take(kScreen)[10]));
    for (uint8_t kind = reader.byte(); kind != kTrailer; kind = reader.byte()) {
      if (kind == kExtension) {
        const bool is_comment = reader.byte() == kComment;
        if (is_comment) comments.push_back(reader.blocks());
        if (!is_comment) reader.skip_blocks();
        continue;
      }
      if (kind != kImage) return false;
      reader.colours(static_cast<uint8_t>(reader.take(9)[8]));
      reader.take(1);
      reader.skip_blocks();
      has_picture = true;
    }
  } catch (const Error&) {
    return false;
  }
  return has_picture;
}

}  // namespace

std::optional<Texts> texts_of_gif(std::string_view bytes) {
  std::vector<std::string> comments;
  if (!walk(bytes, comments) || comments.empty()) return std::nullopt;
  return Texts{comments[0], comments.size() > 1 ? comments[1] : ""};
}

bool is_complete_gif(std::string_view bytes) {
  std::vector<std::string> comments;
  return walk(bytes, comments);
}

}  // namespace atelier::media
