// The CPU twins of the kernels for pictures with their channels last.
#include <cmath>

#include "kernels/cpu.h"
#include "kernels/cpu_math.h"

namespace atelier::kernels::cpu {
namespace {

template <class T>
void sum(const GroupMomentsCall& call) {
  const Pixels& p = call.pixels;
  const T *x = static_cast<const T*>(p.x), *bias = static_cast<const T*>(p.bias);
  const int64_t width = p.channels / call.groups, plane = p.batch * call.groups;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t g = 0; g < call.groups; ++g) {
      double total = 0, squares = 0;
      for (int64_t n = 0; n < p.positions; ++n) {
        for (int64_t c = g * width; c < (g + 1) * width; ++c) {
          const double v = static_cast<double>(load(x[(b * p.positions + n) * p.channels + c])) +
                           (bias ? static_cast<double>(load(bias[c])) : 0);
          total += v;
          squares += v * v;
        }
      }
      double* to = call.moments + b * call.groups + g;
      to[0] = static_cast<double>(p.positions * width);
      to[plane] = total;
      to[2 * plane] = squares;
    }
  }
}

template <class T>
void norm(const GroupNormCall& call) {
  using A = Arith<T>;
  const Pixels& p = call.pixels;
  const T *x = static_cast<const T*>(p.x), *bias = static_cast<const T*>(p.bias);
  const T *weight = static_cast<const T*>(call.weight), *shift = static_cast<const T*>(call.shift);
  const int64_t width = p.channels / call.groups, plane = p.batch * call.groups;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const double* m = call.moments + b * call.groups + c / width;
      const double mean = m[plane] / m[0], variance = m[2 * plane] / m[0] - mean * mean;
      const double deviation = 1 / std::sqrt((variance > 0 ? variance : 0) + call.eps);
      const A centre = static_cast<A>(mean - (bias ? static_cast<double>(load(bias[c])) : 0));
      const A slope = static_cast<A>(deviation) * load(weight[c]), plus = load(shift[c]);
      for (int64_t n = 0; n < p.positions; ++n) {
        const int64_t at = (b * p.positions + n) * p.channels + c;
        A v = (load(x[at]) - centre) * slope + plus;
        if (call.nonlinearity == Nonlinearity::kSilu) v = v / (A(1) + std::exp(-v));
        static_cast<T*>(call.out)[at] = round_to<T>(v);
      }
    }
  }
}

template <class T>
void add(const AddPixelsCall& call) {
  using A = Arith<T>;
  const Pixels& p = call.pixels;
  T* x = static_cast<T*>(call.x);
  const T *y = static_cast<const T*>(p.x), *bias = static_cast<const T*>(p.bias);
  for (int64_t n = 0; n < p.batch * p.positions; ++n, x += p.channels, y += p.channels) {
    for (int64_t c = 0; c < p.channels; ++c) {
      x[c] = round_to<T>(load(x[c]) + (load(y[c]) + (bias ? load(bias[c]) : A(0))));
    }
  }
}

template <class T>
void weave(const WeaveCall& call) {
  using A = Arith<T>;
  const T *x = static_cast<const T*>(call.x), *bias = static_cast<const T*>(call.bias);
  T* out = static_cast<T*>(call.out);
  for (int64_t b = 0; b < call.batch; ++b) {
    for (int64_t row = 0; row < 2 * call.rows; ++row) {
      for (int64_t col = 0; col < 2 * call.cols; ++col, out += call.channels) {
        const int64_t k = row % 2, l = col % 2;
        const int64_t pixel = (b * (call.rows + 1) + row / 2 + k) * (call.cols + 1) + col / 2 + l;
        const T* from = x + (pixel * 4 + 2 * k + l) * call.channels;
        for (int64_t c = 0; c < call.channels; ++c) {
          out[c] = round_to<T>(load(from[c]) + (bias ? load(bias[c]) : A(0)));
        }
      }
    }
  }
}

}  // namespace

void group_moments(const GroupMomentsCall& call) {
  with_type(call.dtype, [&](auto type) { sum<decltype(type)>(call); });
}

void group_norm(const GroupNormCall& call) {
  with_type(call.dtype, [&](auto type) { norm<decltype(type)>(call); });
}

void add_pixels(const AddPixelsCall& call) {
  with_type(call.dtype, [&](auto type) { add<decltype(type)>(call); });
}

void weave(const WeaveCall& call) {
  with_type(call.dtype, [&](auto type) { weave<decltype(type)>(call); });
}

}  // namespace atelier::kernels::cpu
