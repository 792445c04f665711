// Test data for the kernels: buffers of any element type with conversions that share no code with the
// kernels.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/types.h"

namespace atelier::kernels::testing {

inline const std::vector<ElementType> kAllTypes = {ElementType::kF32, ElementType::kF64, ElementType::kBF16,
                                                   ElementType::kF16};

inline const char* name_of(ElementType t) {
  return t == ElementType::kF32    ? "f32"
         : t == ElementType::kF64  ? "f64"
         : t == ElementType::kBF16 ? "bf16"
                                   : "f16";
}

inline int64_t size_of(ElementType t) {
  return t == ElementType::kF64 ? 8 : t == ElementType::kF32 ? 4 : 2;
}

// The nearest bfloat16, by arithmetic on the value.
inline uint16_t bf16_bits(double v) {
  int exponent = 0;
  std::frexp(v, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, -125) - 8);
  const auto rounded = static_cast<float>(std::nearbyint(v / unit) * unit);
  uint32_t bits = 0;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

class Buffer {
 public:
  Buffer(ElementType type, int64_t count)
      : type_(type), count_(count), bytes_(static_cast<size_t>(count * size_of(type)) + 64, 0x5a) {}

  ElementType type() const { return type_; }
  int64_t count() const { return count_; }
  int64_t bytes() const { return count_ * size_of(type_); }
  void* data(int64_t at = 0) { return bytes_.data() + at * size_of(type_); }
  const void* data(int64_t at = 0) const { return bytes_.data() + at * size_of(type_); }

  double operator[](int64_t i) const {
    const uint8_t* p = static_cast<const uint8_t*>(data(i));
    if (type_ == ElementType::kF32) return read<float>(p);
    if (type_ == ElementType::kF64) return read<double>(p);
    if (type_ == ElementType::kF16) return static_cast<double>(read<_Float16>(p));
    const uint32_t bits = static_cast<uint32_t>(read<uint16_t>(p)) << 16;
    return read<float>(reinterpret_cast<const uint8_t*>(&bits));
  }

  void set(int64_t i, double v) {
    void* p = data(i);
    if (type_ == ElementType::kF32) return write(p, static_cast<float>(v));
    if (type_ == ElementType::kF64) return write(p, v);
    if (type_ == ElementType::kF16) return write(p, static_cast<_Float16>(static_cast<float>(v)));
    write(p, bf16_bits(v));
  }

 private:
  template <class T>
  static T read(const uint8_t* p) {
    T v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  template <class T>
  static void write(void* p, T v) {
    std::memcpy(p, &v, sizeof(v));
  }

  ElementType type_;
  int64_t count_;
  std::vector<uint8_t> bytes_;
};

inline Buffer normal(ElementType type, int64_t count, unsigned seed, double mean = 0, double deviation = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> draw(mean, deviation);
  Buffer b(type, count);
  for (int64_t i = 0; i < count; ++i) b.set(i, draw(engine));
  return b;
}

// The type of the rope tables beside data of this type.
inline ElementType table_type(ElementType t) {
  return t == ElementType::kF64 ? ElementType::kF64 : ElementType::kF32;
}

// May a kernel's result be `got` where exact arithmetic gives `want`? Half a unit in the last place for the
// one rounding at the end, and the error of float (double) arithmetic on numbers of size `scale`.
inline double tolerance(ElementType t, double want, double scale) {
  const double arithmetic = (t == ElementType::kF64 ? 2e-14 : 4e-6) * (scale + std::abs(want));
  if (t == ElementType::kBF16) return arithmetic + std::ldexp(std::abs(want), -7) * 0.5001;
  if (t == ElementType::kF16)
    return arithmetic + std::ldexp(std::abs(want), -10) * 0.5001 + std::ldexp(1.0, -25);
  return arithmetic;
}

}  // namespace atelier::kernels::testing
