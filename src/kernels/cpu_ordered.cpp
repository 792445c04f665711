// Sums in one order. Every number passes through the same instructions: edges are filled up to whole tiles
// and blocks.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "kernels/cpu_math.h"
#include "kernels/ordered.h"

#pragma GCC optimize("O3", "no-trapping-math")

namespace atelier::kernels {
namespace {

using cpu::exponential;

constexpr int64_t kBlockRows = 192, kBlockK = 256, kLanes = 32;

// Tiles of a product for vectors of kBytes: kRows of them and two vectors of columns stay in registers. Sums
// do not depend on it.
template <class A, int kBytes, int64_t kRows>
struct Tile {
  using V [[gnu::vector_size(kBytes)]] = A;
  static constexpr int64_t kLength = kBytes / sizeof(A), rows = kRows;
  static_assert(kBlockRows % kRows == 0 && kOrderedColumns % (2 * kLength) == 0);
};

template <class A>
ATELIER_INLINE void pack(const A* b, A* panels, const PanelSource& s) {
  for (int64_t p = s.begin; p < s.end; ++p) {
    A* to = panels + p * s.k * kOrderedColumns;
    const int64_t first = p * kOrderedColumns, count = std::min(kOrderedColumns, s.n - first);
    for (int64_t k = 0; k < s.k; ++k, to += kOrderedColumns) {
      const A* from = b + k * s.k_stride + first * s.n_stride;
      for (int64_t j = 0; j < kOrderedColumns; ++j) to[j] = j < count ? from[j * s.n_stride] : A(0);
    }
  }
}

// tile [rows, kOrderedColumns] of a [k][rows] and b [k][kOrderedColumns]. Rows are named one by one, or the
// compiler would keep their sums in memory.
template <class T, class A, int64_t... kRow>
ATELIER_INLINE void multiply_tile(const A* a, const A* b, int64_t k, A* tile,
                                  std::integer_sequence<int64_t, kRow...>) {
  using V = typename T::V;
  for (int64_t first = 0; first < kOrderedColumns; first += 2 * T::kLength) {
    V left[] = {(static_cast<void>(kRow), V{})...}, right[] = {(static_cast<void>(kRow), V{})...};
    const A *numbers = a, *columns = b + first;
    for (int64_t i = 0; i < k; ++i, numbers += T::rows, columns += kOrderedColumns) {
      V l, r;
      __builtin_memcpy(&l, columns, sizeof l);
      __builtin_memcpy(&r, columns + T::kLength, sizeof r);
      ((left[kRow] += numbers[kRow] * l, right[kRow] += numbers[kRow] * r), ...);
    }
    (__builtin_memcpy(tile + kRow * kOrderedColumns + first, &left[kRow], sizeof(V)), ...);
    (__builtin_memcpy(tile + kRow * kOrderedColumns + first + T::kLength, &right[kRow], sizeof(V)), ...);
  }
}

// rows of a block [tiles][k][T::rows], zeros behind the last.
template <class T, class A>
ATELIER_INLINE void pack_rows(const A* a, A* to, int64_t rows, int64_t k, const OrderedProduct& s) {
  for (int64_t first = 0; first < rows; first += T::rows, to += k * T::rows) {
    for (int64_t r = 0; r < T::rows; ++r) {
      const A* from = a + (first + r) * s.a_row_stride;
      for (int64_t i = 0; i < k; ++i) to[i * T::rows + r] = first + r < rows ? from[i * s.a_k_stride] : A(0);
    }
  }
}

template <class T, class A>
ATELIER_INLINE void multiply(const A* a, const A* panels, A* c, const OrderedProduct& s) {
  const auto packed = std::make_unique_for_overwrite<A[]>(kBlockRows * kBlockK);
  A tile[T::rows * kOrderedColumns];
  for (int64_t k0 = 0; k0 < s.k; k0 += kBlockK) {
    const int64_t k = std::min(kBlockK, s.k - k0);
    for (int64_t row0 = 0; row0 < s.rows; row0 += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, s.rows - row0);
      pack_rows<T>(a + row0 * s.a_row_stride + k0 * s.a_k_stride, packed.get(), rows, k, s);
      for (int64_t column = 0; column < s.n; column += kOrderedColumns) {
        const A* b = panels + column * s.k + k0 * kOrderedColumns;
        const int64_t columns = std::min(kOrderedColumns, s.n - column);
        for (int64_t first = 0; first < rows; first += T::rows) {
          multiply_tile<T>(packed.get() + first * k, b, k, tile,
                           std::make_integer_sequence<int64_t, T::rows>{});
          for (int64_t r = 0; r < std::min(T::rows, rows - first); ++r) {
            A* to = c + (row0 + first + r) * s.c_stride + column;
            const A* from = tile + r * kOrderedColumns;
            if (k0 == 0 && columns == kOrderedColumns) {
              __builtin_memcpy(to, from, kOrderedColumns * sizeof(A));
            } else if (k0 == 0) {
              for (int64_t j = 0; j < columns; ++j) to[j] = from[j];
            } else {
              for (int64_t j = 0; j < columns; ++j) to[j] = to[j] + from[j];
            }
          }
        }
      }
    }
  }
}

ATELIER_CLONES void multiply_narrow(const float* a, const float* panels, float* c, const OrderedProduct& s) {
  multiply<Tile<float, 32, 6>>(a, panels, c, s);
}
ATELIER_CLONES void multiply_narrow(const double* a, const double* panels, double* c,
                                    const OrderedProduct& s) {
  multiply<Tile<double, 32, 6>>(a, panels, c, s);
}

// The same sums by the vectors of AVX-512, where there are.
#ifdef __x86_64__
#define ATELIER_WIDE [[gnu::target("avx512f,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")]]
bool has_wide() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}
ATELIER_WIDE void multiply_wide(const float* a, const float* panels, float* c, const OrderedProduct& s) {
  multiply<Tile<float, 64, 12>>(a, panels, c, s);
}
ATELIER_WIDE void multiply_wide(const double* a, const double* panels, double* c, const OrderedProduct& s) {
  multiply<Tile<double, 64, 12>>(a, panels, c, s);
}
#endif

template <class A>
void multiply_here(const A* a, const A* panels, A* c, const OrderedProduct& s) {
#ifdef __x86_64__
  if (has_wide()) return multiply_wide(a, panels, c, s);
#endif
  multiply_narrow(a, panels, c, s);
}

// f of blocks of kLanes numbers, the last filled up with `fill`.
template <class A, class F>
ATELIER_INLINE void over_lanes(A* x, int64_t n, A fill, const F& f) {
  for (int64_t at = 0; at < n; at += kLanes) {
    A lanes[kLanes];
    if (n - at >= kLanes) {
      __builtin_memcpy(lanes, x + at, sizeof lanes);
    } else {
      for (int64_t i = 0; i < kLanes; ++i) lanes[i] = i < n - at ? x[at + i] : fill;
    }
    f(lanes);
    if (n - at >= kLanes) {
      __builtin_memcpy(x + at, lanes, sizeof lanes);
    } else {
      for (int64_t i = 0; i < n - at; ++i) x[at + i] = lanes[i];
    }
  }
}

ATELIER_INLINE float clamped(float v) {
  v = v > 88.0f ? 88.0f : v;
  return v < -87.0f ? -87.0f : v;
}

ATELIER_INLINE float power(float v) {
  return exponential(clamped(v));
}
ATELIER_INLINE double power(double v) {
  return std::exp(v);
}

// All lanes joined, in pairs.
template <class A, class F>
ATELIER_INLINE A joined(A* lanes, const F& join) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] = join(lanes[i], lanes[i + half]);
  }
  return lanes[0];
}

template <class A>
ATELIER_INLINE void softmax(A* x, const A* bias, const SoftmaxRows& s) {
  constexpr A kLeast = -std::numeric_limits<A>::infinity();
  const A scale = static_cast<A>(s.scale);
  const auto larger = [](A a, A b) __attribute__((always_inline)) {
    return b > a || b != b ? b : a;  // NOLINT(misc-redundant-expression): nan stays
  };
  const auto sum_of = [](A a, A b) __attribute__((always_inline)) {
    return a + b;
  };
  for (int64_t row = 0; row < s.rows; ++row, x += s.n) {
    for (int64_t i = 0; i < s.n; ++i) x[i] = x[i] * scale;
    for (int64_t i = 0; i < (bias ? s.n : 0); ++i) x[i] = x[i] + bias[row * s.bias_stride + i];
    A lanes[kLanes];
    for (A& lane : lanes) lane = kLeast;
    over_lanes(
        x, s.n, kLeast, [&](A * v) __attribute__((always_inline)) {
          for (int64_t i = 0; i < kLanes; ++i) lanes[i] = larger(lanes[i], v[i]);
        });
    const A most = joined(lanes, larger);
    for (A& lane : lanes) lane = 0;
    over_lanes(
        x, s.n, kLeast, [&](A * v) __attribute__((always_inline)) {
          A made[kLanes];
          for (int64_t i = 0; i < kLanes; ++i) v[i] = v[i] - most;
          for (int64_t i = 0; i < kLanes; ++i) made[i] = power(v[i]);
          for (int64_t i = 0; i < kLanes; ++i) v[i] = v[i] < A(-87) ? A(0) : made[i];
          for (int64_t i = 0; i < kLanes; ++i) lanes[i] += v[i];
        });
    const A share = A(1) / joined(lanes, sum_of);
    for (int64_t i = 0; i < s.n; ++i) x[i] = x[i] * share;
  }
}

ATELIER_CLONES void softmax_narrow(float* x, const float* bias, const SoftmaxRows& s) {
  softmax(x, bias, s);
}
#ifdef __x86_64__
ATELIER_WIDE void softmax_wide(float* x, const float* bias, const SoftmaxRows& s) {
  softmax(x, bias, s);
}
#endif

template <class A>
ATELIER_INLINE void sum_rows(const A* x, double* sums, double* squares, int64_t rows, int64_t n) {
  for (int64_t row = 0; row < rows; ++row, x += n) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double v = static_cast<double>(x[i]);
      sum += v;
      square += v * v;
    }
    sums[row] = sum;
    if (squares) squares[row] = square;
  }
}

constexpr double kUnit = 0x1p-44, kMost = 0x1p60;

}  // namespace

ATELIER_CLONES void pack_panels(const float* b, float* panels, const PanelSource& source) {
  pack(b, panels, source);
}
ATELIER_CLONES void pack_panels(const double* b, double* panels, const PanelSource& source) {
  pack(b, panels, source);
}
void ordered_product(const float* a, const float* panels, float* c, const OrderedProduct& sizes) {
  multiply_here(a, panels, c, sizes);
}
void ordered_product(const double* a, const double* panels, double* c, const OrderedProduct& sizes) {
  multiply_here(a, panels, c, sizes);
}
void ordered_softmax(float* x, const float* bias, const SoftmaxRows& sizes) {
#ifdef __x86_64__
  if (has_wide()) return softmax_wide(x, bias, sizes);
#endif
  softmax_narrow(x, bias, sizes);
}
ATELIER_CLONES void ordered_softmax(double* x, const double* bias, const SoftmaxRows& sizes) {
  softmax(x, bias, sizes);
}
ATELIER_CLONES void ordered_silu(float* x, int64_t n) {
  over_lanes(
      x, n, 0.0f, [](float* v) __attribute__((always_inline)) {
        for (int64_t i = 0; i < kLanes; ++i) v[i] = v[i] / (1.0f + exponential(clamped(-v[i])));
      });
}
// As kernels.h's gelu_tanh.
ATELIER_CLONES void ordered_gelu(float* x, int64_t n) {
  over_lanes(
      x, n, 0.0f, [](float* v) __attribute__((always_inline)) {
        for (int64_t i = 0; i < kLanes; ++i)
          v[i] =
              v[i] /
              (1.0f + exponential(clamped(v[i] * (-1.5957691216057308f - 0.0713548162726f * v[i] * v[i]))));
      });
}
ATELIER_CLONES void row_sums(const float* x, double* sums, double* squares, int64_t rows, int64_t n) {
  sum_rows(x, sums, squares, rows, n);
}
ATELIER_CLONES void row_sums(const double* x, double* sums, double* squares, int64_t rows, int64_t n) {
  sum_rows(x, sums, squares, rows, n);
}

void exact_parts(const double* x, int64_t n, double parts[kSumParts]) {
  __extension__ using Wide = __int128;
  Wide sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!(std::abs(x[i]) < kMost)) {
      std::fill_n(parts, kSumParts, std::numeric_limits<double>::quiet_NaN());
      return;
    }
    sum += static_cast<Wide>(std::nearbyint(x[i] / kUnit));
  }
  for (int i = 0; i < kSumParts - 1; ++i, sum >>= 32)
    parts[i] = static_cast<double>(static_cast<uint32_t>(sum));
  parts[kSumParts - 1] = static_cast<double>(static_cast<int64_t>(sum));
}

double sum_of_parts(const double parts[kSumParts]) {
  double sum = 0;
  for (int i = kSumParts - 1; i >= 0; --i) sum = sum * 0x1p32 + parts[i];
  return sum * kUnit;
}

}  // namespace atelier::kernels
