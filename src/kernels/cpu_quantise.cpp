// The CPU twins of norm_modulate_e4m3 and quantise_e4m3. Numbers are made twice, for the scale and for the
// bytes, instead of being kept.
#include "kernels/cpu.h"
#include "kernels/cpu_e4m3.h"

#pragma GCC optimize("O3", "no-trapping-math", "fp-contract=off")

namespace atelier::kernels::cpu {
namespace {

template <class F>
ATELIER_INLINE float most_of(float most, int64_t channels, const F& f) {
#pragma GCC ivdep
  for (int64_t c = 0; c < channels; ++c) most = e4m3::larger(most, f(c));
  return most;
}

template <class F>
ATELIER_INLINE void write(uint8_t* out, float inverse, int64_t channels, const F& f) {
#pragma GCC ivdep
  for (int64_t c = 0; c < channels; ++c) out[c] = e4m3_of(e4m3::times(f(c), inverse));
}

template <class T>
ATELIER_INLINE void norm_rows(const NormModulateE4m3Call& call) {
  const int64_t channels = call.channels;
  for (int64_t row = 0; row < call.n * call.batch; ++row) {
    const int64_t mod = row % call.batch * call.mod_stride;
    const T* x = static_cast<const T*>(call.x) + row * channels;
    const T *shift = static_cast<const T*>(call.shift) + mod,
            *scale = static_cast<const T*>(call.scale) + mod;
    const float mean =
        e4m3::mean_of(sum_over(
                          channels, [&](int64_t c) __attribute__((always_inline)) { return as_float(x[c]); }),
                      channels);
    const double squares = sum_over(
        channels, [&](int64_t c) __attribute__((always_inline)) {
          return e4m3::squared_distance(as_float(x[c]), mean);
        });
    const e4m3::Moments moments{mean, e4m3::inverse_deviation(squares, channels, call.eps)};
    const auto value = [&](int64_t c) __attribute__((always_inline)) {
      return e4m3::modulated(as_float(x[c]), moments, as_float(scale[c]), as_float(shift[c]));
    };
    const auto by = e4m3::scale_of(most_of(0, channels, value));
    call.out.scales[row] = by.scale;
    write(static_cast<uint8_t*>(call.out.rows) + row * channels, by.inverse, channels, value);
  }
}

// Calls f with a function from a channel to its number.
template <class T, class F>
ATELIER_INLINE void with_values(const RowSegment& s, int64_t row, const F& f) {
  const T* x = static_cast<const T*>(s.x) + row * s.row_stride;
  if (s.gelu) {
    f([&](int64_t c) __attribute__((always_inline)) { return e4m3::gelu(as_float(x[c])); });
  } else {
    f([&](int64_t c) __attribute__((always_inline)) { return as_float(x[c]); });
  }
}

template <class T>
ATELIER_INLINE void quantise_rows(const QuantiseE4m3Call& call) {
  for (int64_t row = 0; row < call.rows; ++row) {
    float most = 0;
    for (int64_t i = 0; i < call.count; ++i) {
      const RowSegment& s = call.segments[i];
      with_values<T>(
          s,
          row, [&](auto value) __attribute__((always_inline)) { most = most_of(most, s.channels, value); });
    }
    const auto by = e4m3::scale_of(most);
    call.out.scales[row] = by.scale;
    auto* out = static_cast<uint8_t*>(call.out.rows) + row * call.channels;
    for (int64_t i = 0; i < call.count; ++i) {
      const RowSegment& s = call.segments[i];
      with_values<T>(
          s,
          row, [&](auto value) __attribute__((always_inline)) { write(out, by.inverse, s.channels, value); });
      out += s.channels;
    }
  }
}

}  // namespace

ATELIER_CLONES void norm_modulate_e4m3(const NormModulateE4m3Call& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) { norm_rows<decltype(type)>(call); });
}

ATELIER_CLONES void quantise_e4m3(const QuantiseE4m3Call& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) { quantise_rows<decltype(type)>(call); });
}

}  // namespace atelier::kernels::cpu
