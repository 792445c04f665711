#include "weights/slices.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/quote.h"
#include "weights/decode.h"

namespace atelier::weights {
namespace {

// A tensor of any rank seen as rows x columns, each column being `inner` elements.
struct Matrix {
  int64_t rows = 1, cols = 1, inner = 1;
  explicit Matrix(std::span<const int64_t> shape) {
    if (!shape.empty()) rows = shape[0];
    if (shape.size() > 1) cols = shape[1];
    for (size_t i = 2; i < shape.size(); ++i) inner *= shape[i];
  }
  int64_t width() const { return cols * inner; }
};

std::vector<Range> ranges_of(std::span<const Range> wanted, int64_t all) {
  if (wanted.empty()) return {{0, all}};
  for (const Range r : wanted) ENSURE(r.begin >= 0 && r.size >= 0 && r.end() <= all);
  return {wanted.begin(), wanted.end()};
}

std::vector<int64_t> shape_of(const CheckpointPiece& piece) {
  auto shape = piece.stored.entry->shape;
  if (piece.rows.size > 0) shape[0] = piece.rows.size;
  return shape;
}

// Where a piece lies in the canonical matrix.
struct Tile {
  const CheckpointPiece* piece;
  Range rows, cols;
};

std::vector<std::vector<Tile>> tiles(const Canonical& tensor) {  // grouped by the rows they share
  std::vector<std::vector<Tile>> groups;
  int64_t row = 0, col = 0;
  for (const auto& piece : tensor.pieces) {
    const auto shape = shape_of(piece);
    const Matrix m(shape);
    if (tensor.axis == 0 || groups.empty()) groups.emplace_back();
    groups.back().push_back({&piece, {row, m.rows}, {col, m.cols}});
    (tensor.axis == 0 ? row : col) += tensor.axis == 0 ? m.rows : m.cols;
  }
  return groups;
}

Strip strip(const Tile& tile, Range rows, Range cols, int64_t inner) {
  const int64_t width = tile.cols.size * inner;
  const int64_t row = rows.begin - tile.rows.begin + tile.piece->rows.begin;
  return {tile.piece->stored, row * width + (cols.begin - tile.cols.begin) * inner, width, 0,
          cols.size * inner};
}

constexpr int64_t kDecodedAtOnce = 1 << 14;  // elements; a multiple of every block

// Elements [first, first + count) in `tensor.dtype()`, multiplied by nothing yet.
void decode_out(const StoredTensor& tensor, int64_t first, int64_t count, float* out) {
  const auto& entry = *tensor.entry;
  const auto [elements, bytes] = block_of(entry.dtype);
  const int64_t most = kDecodedAtOnce / elements;
  std::vector<std::byte> packed(static_cast<size_t>(std::min(most, count / elements + 2) * bytes));
  std::vector<float> numbers(static_cast<size_t>(std::min(most, count / elements + 2) * elements));
  for (int64_t done = 0; done < count;) {
    const int64_t block = (first + done) / elements, skip = (first + done) % elements;
    const int64_t blocks = std::min(most, (skip + count - done + elements - 1) / elements);
    const int64_t n = std::min(blocks * elements - skip, count - done);
    tensor.file->read(entry.offset + block * bytes,
                      std::span(packed).first(static_cast<size_t>(blocks * bytes)));
    decode(entry.dtype, packed.data(), blocks, numbers.data());
    std::memcpy(out + done, numbers.data() + skip, static_cast<size_t>(n) * sizeof(float));
    done += n;
  }
}

// Copies elements [first, first + count) of a tensor whose rows are `width` long.
void copy_elements(const StoredTensor& tensor, int64_t first, int64_t count, int64_t width, std::byte* out) {
  const auto& entry = *tensor.entry;
  if (tensor.dtype() == entry.dtype && tensor.scales == nullptr) {
    const int64_t size = size_of(entry.dtype);
    return tensor.file->read(entry.offset + first * size, {out, static_cast<size_t>(count * size)});
  }
  auto* const decoded = reinterpret_cast<float*>(out);  // memory of floats, as dtype() says
  decode_out(tensor, first, count, decoded);
  if (tensor.scales != nullptr) {
    for (int64_t i = 0; i < count;) {
      const int64_t row = (first + i) / width, end = std::min(count, (row + 1) * width - first);
      const float scale =
          tensor.scales->size() == 1 ? tensor.scales->front() : (*tensor.scales)[static_cast<size_t>(row)];
      for (; i < end; ++i) decoded[i] *= scale;
    }
  }
}

}  // namespace

DType StoredTensor::dtype() const {
  return scales == nullptr && is_plain(entry->dtype) ? entry->dtype : DType::kF32;
}

bool same_shape(std::span<const int64_t> a, std::span<const int64_t> b) {
  const size_t shared = std::min(a.size(), b.size());
  const auto is_one = [](int64_t n) { return n == 1; };
  const auto longer = a.size() > b.size() ? a : b;
  return (shared > 0) == !longer.empty() &&
         std::equal(a.begin(), a.begin() + static_cast<int64_t>(shared), b.begin()) &&
         std::all_of(longer.begin() + static_cast<int64_t>(shared), longer.end(), is_one);
}

bool Canonical::is_complete() const {
  return std::all_of(pieces.begin(), pieces.end(), [](auto& p) { return p.stored.entry != nullptr; });
}

Fit Canonical::fit() const {
  std::vector<int64_t> whole;
  const auto along = static_cast<size_t>(axis);
  for (const auto& piece : pieces) {
    if (piece.stored.entry == nullptr)
      return {{}, str("the checkpoint lacks its part ", in_quotes(piece.name))};
    const auto& stored = piece.stored.entry->shape;
    if (piece.rows.size > 0 && (stored.empty() || piece.rows.end() > stored[0])) {
      return {{},
              str("rows ", piece.rows.begin, " to ", piece.rows.end(), " are wanted of ",
                  in_quotes(piece.name), ", whose shape is ", shape_text(stored))};
    }
    auto shape = shape_of(piece);
    if (is_transposed && shape.size() != 2) return {{}, str(shape_text(shape), ", which is no matrix")};
    if (is_transposed) std::swap(shape[0], shape[1]);
    if (pieces.size() == 1) return {std::move(shape), {}};
    if (along >= shape.size()) {
      return {
          {},
          str("its part ", in_quotes(piece.name), " of shape ", shape_text(stored), " cannot be stacked")};
    }
    const int64_t size = std::exchange(shape[along], whole.empty() ? 0 : whole[along]);
    if (whole.empty()) whole = shape;
    if (shape != whole || (axis > 0 && piece.stored.dtype() != pieces.front().stored.dtype())) {
      const auto& first = *pieces.front().stored.entry;
      return {
          {},
          str("its parts do not fit together: ", in_quotes(piece.name), " is ",
              name_of(piece.stored.entry->dtype), " ", shape_text(stored), ", ",
              in_quotes(pieces.front().name), " is ", name_of(first.dtype), " ", shape_text(first.shape))};
    }
    whole[along] += size;
  }
  return {std::move(whole), {}};
}

bool Band::is_plain() const {
  return strips.size() == 1 && strips[0].elements == width && strips[0].stride == width;
}

int64_t count_elements(std::span<const int64_t> shape, const Slice& slice) {
  const Matrix m(shape);
  return size_of_all(ranges_of(slice.rows, m.rows)) * size_of_all(ranges_of(slice.cols, m.cols)) * m.inner;
}

std::vector<Band> plan(const Canonical& tensor, std::span<const int64_t> shape, const Slice& slice) {
  const Matrix m(shape);
  const auto cols = ranges_of(slice.cols, m.cols);
  const int64_t width = size_of_all(cols) * m.inner;
  const auto groups = tiles(tensor);
  std::vector<Band> bands;
  int64_t first = 0;
  for (const Range wanted : ranges_of(slice.rows, m.rows)) {
    for (const auto& group : groups) {
      const Range rows = intersection(wanted, group.front().rows);
      if (rows.size == 0 || width == 0) continue;
      Band band{group.front().piece->stored.dtype(), first, rows.size * width, width, {}};
      int64_t column = 0;
      for (const Range c : cols) {
        for (const auto& tile : group) {
          const Range part = intersection(c, tile.cols);
          if (part.size == 0) continue;
          Strip s = strip(tile, rows, part, m.inner);
          s.column = column;
          column += s.elements;
          band.strips.push_back(s);
        }
      }
      first += band.elements;
      bands.push_back(std::move(band));
    }
  }
  return bands;
}

void copy_out(const Band& band, Range elements, std::byte* out) {
  if (band.is_plain()) {
    const Strip& s = band.strips[0];
    return copy_elements(s.tensor, s.first + elements.begin, elements.size, s.stride, out);
  }
  const int64_t size = size_of(band.dtype);
  for (int64_t row = elements.begin / band.width; row * band.width < elements.end(); ++row) {
    for (const auto& s : band.strips) {
      const Range here{row * band.width + s.column, s.elements};
      const Range part = intersection(here, elements);
      if (part.size == 0) continue;
      copy_elements(s.tensor, s.first + row * s.stride + part.begin - here.begin, part.size, s.stride,
                    out + (part.begin - elements.begin) * size);
    }
  }
}

}  // namespace atelier::weights
