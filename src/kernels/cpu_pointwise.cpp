// The CPU twins of gated_add, gelu_tanh and gated_gelu.
#include <cmath>

#include "kernels/cpu.h"
#include "kernels/cpu_math.h"

#pragma GCC optimize("O3", "no-trapping-math")

namespace atelier::kernels::cpu {
namespace {

template <class T>
ATELIER_INLINE void add_row(T* x, const T* y, const T* bias, const T* gate, int64_t channels) {
  if (bias == nullptr) {
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) x[c] = round_to<T>(load(x[c]) + load(gate[c]) * load(y[c]));
  } else {
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      x[c] = round_to<T>(load(x[c]) + load(gate[c]) * (load(y[c]) + load(bias[c])));
    }
  }
}

template <class T>
ATELIER_INLINE void add_rows(const GatedAddCall& call) {
  for (int64_t n = 0; n < call.n; ++n) {
    for (int64_t b = 0; b < call.batch; ++b) {
      const int64_t at = (n * call.batch + b) * call.channels;
      add_row(static_cast<T*>(call.x) + at, static_cast<const T*>(call.y) + at,
              static_cast<const T*>(call.bias), static_cast<const T*>(call.gate) + b * call.gate_stride,
              call.channels);
    }
  }
}

// 0.5 v (1 + tanh u) = v / (1 + e^-2u) with u = sqrt(2/pi) (v + 0.044715 v^3): no cancellation where v is
// negative.
ATELIER_INLINE float gelu(float v) {
  float e = v * (-1.5957691216057308f - 0.0713548162726f * v * v);
  e = e > 88.0f ? 88.0f : e;
  e = e < -87.0f ? -87.0f : e;
  return v / (1.0f + exponential(e));
}

ATELIER_INLINE double gelu(double v) {
  return v / (1.0 + std::exp(v * (-1.5957691216057308 - 0.07135481627260025 * v * v)));
}

template <class T>
ATELIER_INLINE void gelu_rows(const GeluCall& call) {
  const T* bias = static_cast<const T*>(call.bias);
  for (int64_t r = 0; r < call.rows; ++r) {
    T* x = static_cast<T*>(call.x) + r * call.row_stride;
    if (bias == nullptr) {
      for (int64_t c = 0; c < call.channels; ++c) x[c] = round_to<T>(gelu(load(x[c])));
    } else {
#pragma GCC ivdep
      for (int64_t c = 0; c < call.channels; ++c) x[c] = round_to<T>(gelu(load(x[c]) + load(bias[c])));
    }
  }
}

ATELIER_INLINE float gelu_erf(float v) {
  return 0.5f * v * (1.0f + std::erf(v * 0.70710678118654752f));
}

ATELIER_INLINE double gelu_erf(double v) {
  return 0.5 * v * (1.0 + std::erf(v * 0.70710678118654752));
}

template <class T>
ATELIER_INLINE void gate_rows(const GatedGeluCall& call) {
  for (int64_t r = 0; r < call.rows; ++r) {
    const T* x = static_cast<const T*>(call.x) + 2 * r * call.channels;
    T* out = static_cast<T*>(call.out) + r * call.channels;
    if (call.form == GatedGelu::kErfSecond) {
      for (int64_t c = 0; c < call.channels; ++c)
        out[c] = round_to<T>(load(x[c]) * gelu_erf(load(x[call.channels + c])));
      continue;
    }
#pragma GCC ivdep
    for (int64_t c = 0; c < call.channels; ++c)
      out[c] = round_to<T>(gelu(load(x[c])) * load(x[call.channels + c]));
  }
}

}  // namespace

ATELIER_CLONES void gated_add(const GatedAddCall& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) { add_rows<decltype(type)>(call); });
}

ATELIER_CLONES void gelu_tanh(const GeluCall& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) { gelu_rows<decltype(type)>(call); });
}

ATELIER_CLONES void gated_gelu(const GatedGeluCall& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) { gate_rows<decltype(type)>(call); });
}

}  // namespace atelier::kernels::cpu
