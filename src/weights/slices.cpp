#include "weights/slices.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/quote.h"

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

int64_t total(std::span<const Range> ranges) {
  return std::accumulate(ranges.begin(), ranges.end(), int64_t{0},
                         [](int64_t n, Range r) { return n + r.size; });
}

std::vector<Range> ranges_of(std::span<const Range> wanted, int64_t all) {
  if (wanted.empty()) return {{0, all}};
  for (const Range r : wanted) ENSURE(r.begin >= 0 && r.size >= 0 && r.end() <= all);
  return {wanted.begin(), wanted.end()};
}

std::vector<int64_t> shape_of(const CheckpointPiece& piece) {
  auto shape = piece.entry->shape;
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
  const auto& entry = *tile.piece->entry;
  const int64_t size = size_of(entry.dtype), width = tile.cols.size * inner;
  const int64_t row = rows.begin - tile.rows.begin + tile.piece->rows.begin;
  const int64_t element = row * width + (cols.begin - tile.cols.begin) * inner;
  return {tile.piece->file, entry.offset + element * size, width * size, 0, cols.size * inner};
}

}  // namespace

bool Canonical::is_complete() const {
  return std::all_of(pieces.begin(), pieces.end(), [](auto& p) { return p.entry != nullptr; });
}

Fit Canonical::fit() const {
  std::vector<int64_t> whole;
  const auto along = static_cast<size_t>(axis);
  for (const auto& piece : pieces) {
    if (piece.entry == nullptr) return {{}, str("the checkpoint lacks its part ", in_quotes(piece.name))};
    const auto& stored = piece.entry->shape;
    if (piece.rows.size > 0 && (stored.empty() || piece.rows.end() > stored[0])) {
      return {{},
              str("rows ", piece.rows.begin, " to ", piece.rows.end(), " are wanted of ",
                  in_quotes(piece.name), ", whose shape is ", shape_text(stored))};
    }
    auto shape = shape_of(piece);
    if (pieces.size() == 1) return {std::move(shape), {}};
    if (along >= shape.size()) {
      return {
          {},
          str("its part ", in_quotes(piece.name), " of shape ", shape_text(stored), " cannot be stacked")};
    }
    const int64_t size = std::exchange(shape[along], whole.empty() ? 0 : whole[along]);
    if (whole.empty()) whole = shape;
    if (shape != whole || (axis > 0 && piece.entry->dtype != pieces.front().entry->dtype)) {
      const auto& first = *pieces.front().entry;
      return {{},
              str("its parts do not fit together: ", in_quotes(piece.name), " is ",
                  name_of(piece.entry->dtype), " ", shape_text(stored), ", ", in_quotes(pieces.front().name),
                  " is ", name_of(first.dtype), " ", shape_text(first.shape))};
    }
    whole[along] += size;
  }
  return {std::move(whole), {}};
}

bool Band::is_plain() const {
  return strips.size() == 1 && strips[0].elements == width && strips[0].stride == width * size_of(dtype);
}

std::vector<RawPiece> raw_pieces(const Canonical& tensor) {
  std::vector<RawPiece> pieces;
  for (const auto& group : tiles(tensor)) {
    for (const auto& tile : group) {
      pieces.push_back({tile.piece->name, tile.piece->rows.begin, tile.rows, tile.cols});
    }
  }
  return pieces;
}

int64_t count_elements(std::span<const int64_t> shape, const Slice& slice) {
  const Matrix m(shape);
  return total(ranges_of(slice.rows, m.rows)) * total(ranges_of(slice.cols, m.cols)) * m.inner;
}

std::vector<Band> plan(const Canonical& tensor, std::span<const int64_t> shape, const Slice& slice) {
  const Matrix m(shape);
  const auto cols = ranges_of(slice.cols, m.cols);
  const int64_t width = total(cols) * m.inner;
  const auto groups = tiles(tensor);
  std::vector<Band> bands;
  int64_t first = 0;
  for (const Range wanted : ranges_of(slice.rows, m.rows)) {
    for (const auto& group : groups) {
      const Range rows = intersection(wanted, group.front().rows);
      if (rows.size == 0 || width == 0) continue;
      Band band{group.front().piece->entry->dtype, first, rows.size * width, width, {}};
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
  const int64_t size = size_of(band.dtype);
  const auto read = [&](const Strip& s, int64_t offset, int64_t to, int64_t count) {
    s.file->read(offset, {out + to * size, static_cast<size_t>(count * size)});
  };
  if (band.is_plain()) {
    read(band.strips[0], band.strips[0].offset + elements.begin * size, 0, elements.size);
    return;
  }
  for (int64_t row = elements.begin / band.width; row * band.width < elements.end(); ++row) {
    for (const auto& s : band.strips) {
      const Range here{row * band.width + s.column, s.elements};
      const Range part = intersection(here, elements);
      if (part.size == 0) continue;
      read(s, s.offset + row * s.stride + (part.begin - here.begin) * size, part.begin - elements.begin,
           part.size);
    }
  }
}

}  // namespace atelier::weights
