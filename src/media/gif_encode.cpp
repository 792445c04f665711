// Writes GIF: 256 colours of its own for every frame, found by median cut. [GIF89a; Heckbert 1982,
// Color image quantization]
#include <algorithm>
#include <array>
#include <numeric>

#include "base/error.h"
#include "media/animation.h"
#include "media/riff.h"

namespace atelier::media {
namespace {

constexpr int kBits = 5;  // of a channel that tell colours apart
constexpr size_t kCells = size_t{1} << (3 * kBits), kColours = 256;
constexpr int kCodeBits = 8, kMostCodes = 4096;

size_t cell_of(const uint8_t* rgb) {
  const auto part = [](uint8_t v) { return static_cast<size_t>(v >> (8 - kBits)); };
  return part(rgb[0]) << (2 * kBits) | part(rgb[1]) << kBits | part(rgb[2]);
}

// Pixels of one cell of colours: their number and their sums.
struct Cell {
  int64_t count = 0;
  std::array<int64_t, 3> sum{};
};

// Cells that become one colour.
struct Box {
  size_t begin = 0, end = 0;  // of the list of cells
  int axis = 0;               // along which it is widest
  double spread = 0;          // pixels x the square of its width there

  void measure(const std::vector<Cell>& cells, const std::vector<uint32_t>& list) {
    std::array<double, 3> least{1e9, 1e9, 1e9}, most{-1, -1, -1};
    double pixels = 0;
    for (size_t i = begin; i < end; ++i) {
      const Cell& cell = cells[list[i]];
      pixels += static_cast<double>(cell.count);
      for (size_t c = 0; c < 3; ++c) {
        const double mean = static_cast<double>(cell.sum[c]) / static_cast<double>(cell.count);
        least[c] = std::min(least[c], mean), most[c] = std::max(most[c], mean);
      }
    }
    axis = 0;
    for (size_t c = 1; c < 3; ++c) {
      if (most[c] - least[c] > most[static_cast<size_t>(axis)] - least[static_cast<size_t>(axis)])
        axis = static_cast<int>(c);
    }
    const double width = most[static_cast<size_t>(axis)] - least[static_cast<size_t>(axis)];
    spread = end - begin > 1 ? pixels * width * width : 0;
  }
};

struct Palette {
  std::array<uint8_t, 3 * kColours> rgb{};
  std::vector<uint8_t> index = std::vector<uint8_t>(kCells);  // of a cell
};

// Where the half of a box's pixels lies; both sides keep a cell.
size_t middle_of(const Box& box, const std::vector<Cell>& cells, const std::vector<uint32_t>& list) {
  int64_t all = 0, seen = 0;
  for (size_t i = box.begin; i < box.end; ++i) all += cells[list[i]].count;
  size_t at = box.begin;
  while (at < box.end - 1 && (seen += cells[list[at]].count) * 2 < all) ++at;
  return std::clamp(at + 1, box.begin + 1, box.end - 1);
}

Palette palette_of(const Image& picture) {
  std::vector<Cell> cells(kCells);
  for (size_t i = 0; i < picture.rgb.size(); i += 3) {
    Cell& cell = cells[cell_of(&picture.rgb[i])];
    ++cell.count;
    for (size_t c = 0; c < 3; ++c) cell.sum[c] += picture.rgb[i + c];
  }
  std::vector<uint32_t> list;
  for (uint32_t i = 0; i < kCells; ++i) {
    if (cells[i].count > 0) list.push_back(i);
  }
  std::vector<Box> boxes{{0, list.size()}};
  boxes[0].measure(cells, list);
  while (boxes.size() < kColours) {
    const auto widest = std::max_element(boxes.begin(), boxes.end(),
                                         [](const Box& a, const Box& b) { return a.spread < b.spread; });
    if (widest->spread == 0) break;
    const auto mean = [&](uint32_t cell) {
      return static_cast<double>(cells[cell].sum[static_cast<size_t>(widest->axis)]) /
             static_cast<double>(cells[cell].count);
    };
    std::sort(list.begin() + static_cast<std::ptrdiff_t>(widest->begin),
              list.begin() + static_cast<std::ptrdiff_t>(widest->end),
              [&](uint32_t a, uint32_t b) { return mean(a) < mean(b); });
    Box upper{middle_of(*widest, cells, list), widest->end};
    widest->end = upper.begin;
    widest->measure(cells, list), upper.measure(cells, list);
    boxes.push_back(upper);
  }
  Palette out;
  for (size_t b = 0; b < boxes.size(); ++b) {
    Cell all;
    for (size_t i = boxes[b].begin; i < boxes[b].end; ++i) {
      const Cell& cell = cells[list[i]];
      all.count += cell.count;
      for (size_t c = 0; c < 3; ++c) all.sum[c] += cell.sum[c];
      out.index[list[i]] = static_cast<uint8_t>(b);
    }
    for (size_t c = 0; c < 3; ++c)
      out.rgb[3 * b + c] = static_cast<uint8_t>((all.sum[c] + all.count / 2) / all.count);
  }
  return out;
}

void put_blocks(std::string& out, std::string_view data) {
  for (; !data.empty(); data.remove_prefix(std::min<size_t>(data.size(), 255))) {
    const auto block = data.substr(0, 255);
    out.push_back(static_cast<char>(block.size()));
    out += block;
  }
  out.push_back('\0');
}

// LZW with codes that grow from 9 to 12 bits. [GIF89a appendix F]
class LzwWriter {
 public:
  std::string pack(const std::vector<uint8_t>& pixels) {
    clear();
    uint32_t prefix = pixels[0];
    for (size_t i = 1; i < pixels.size(); ++i) {
      uint32_t& entry = table_[prefix << 8 | pixels[i]];
      if (entry >> 12 == generation_) {
        prefix = entry & 0xfff;
        continue;
      }
      put(prefix);
      entry = generation_ << 12 | static_cast<uint32_t>(next_++);
      prefix = pixels[i];
      if (next_ - 1 == 1 << width_ && width_ < 12) ++width_;
      if (next_ == kMostCodes) clear();
    }
    put(prefix);
    if (next_ == 1 << width_ && width_ < 12) ++width_;
    put(kEnd);
    if (bits_ > 0) out_.push_back(static_cast<char>(waiting_));
    return std::move(out_);
  }

 private:
  static constexpr uint32_t kClear = 1 << kCodeBits, kEnd = kClear + 1;

  void clear() {
    put(kClear);
    ++generation_, next_ = kEnd + 1, width_ = kCodeBits + 1;
  }
  void put(uint32_t code) {
    waiting_ |= code << bits_, bits_ += width_;
    for (; bits_ >= 8; bits_ -= 8, waiting_ >>= 8) out_.push_back(static_cast<char>(waiting_));
  }

  // By prefix and pixel: the clear it was made after, and its code.
  std::vector<uint32_t> table_ = std::vector<uint32_t>(size_t{kMostCodes} << 8);
  uint32_t generation_ = 0, waiting_ = 0;
  int next_ = 0, width_ = kCodeBits + 1, bits_ = 0;
  std::string out_;
};

// Everything of a frame that does not depend on its time: palette and pixels.
std::string coded_frame(const Image& picture) {
  std::string out;
  out.push_back('\x2c');
  put_little(out, 0, 4);
  put_little(out, static_cast<uint64_t>(picture.width), 2);
  put_little(out, static_cast<uint64_t>(picture.height), 2);
  out.push_back('\x87');  // 256 colours of its own
  const Palette palette = palette_of(picture);
  out.append(palette.rgb.begin(), palette.rgb.end());
  std::vector<uint8_t> pixels(picture.rgb.size() / 3);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = palette.index[cell_of(&picture.rgb[3 * i])];
  out.push_back(static_cast<char>(kCodeBits));
  put_blocks(out, LzwWriter().pack(pixels));
  return out;
}

void put_time(std::string& out, uint64_t hundredths) {
  out += std::string("\x21\xf9\x04\x04", 4);  // graphic control: the frame stays until the next
  put_little(out, std::min<uint64_t>(hundredths, 0xffff), 2);
  out += std::string("\0\0", 2);
}

}  // namespace

std::string encode_gif(const Video& video, const Texts& texts) {
  const Image& first = video.frames.front();
  std::string out = "GIF89a";
  put_little(out, static_cast<uint64_t>(first.width), 2);
  put_little(out, static_cast<uint64_t>(first.height), 2);
  out += std::string("\x70\0\0", 3);
  if (video.frames.size() > 1) {
    out += std::string("\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0", 18);  // for ever
    out.push_back('\0');
  }
  for (const auto& text : {texts.parameters, texts.json}) {
    if (text.empty()) continue;
    out += "\x21\xfe";
    put_blocks(out, text);
  }
  const FrameTimes times(std::min(video.fps, 50.0), 100);  // viewers slow shorter frames down
  const auto coded = encode_each(video, coded_frame);
  for (size_t i = 0; i < coded.size(); ++i) {
    put_time(out, times.ticks(i));
    out += coded[i];
  }
  out.push_back('\x3b');
  return out;
}

}  // namespace atelier::media
