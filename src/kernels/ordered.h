// Sums whose terms are taken in one order, whatever else is computed beside them: on the CPU, for `float` and
// `double`. A result depends on the numbers that it is made of alone: not on how many rows or columns there
// are, on where one lies in memory, or on how many threads share the work. Nothing here knows threads.
#pragma once
#include <cstdint>

namespace atelier::kernels {

inline constexpr int64_t kOrderedColumns = 32;  // of a panel

// b [k, n], with any strides, as panels of kOrderedColumns columns: [panels][k][kOrderedColumns], zeros
// behind the last column. Panels [begin, end).
struct PanelSource {
  int64_t k = 0, n = 0, k_stride = 0, n_stride = 0;
  int64_t begin = 0, end = 0;
};
void pack_panels(const float* b, float* panels, const PanelSource& source);
void pack_panels(const double* b, double* panels, const PanelSource& source);

// c [rows, n] = a [rows, k] * b: every number is the sum over k in order, in blocks of a fixed length whose
// sums are added in order. c's rows are c_stride apart; a has any strides. `panels` are all of b.
struct OrderedProduct {
  int64_t rows = 0, k = 0, n = 0;
  int64_t a_row_stride = 0, a_k_stride = 1, c_stride = 0;
};
void ordered_product(const float* a, const float* panels, float* c, const OrderedProduct& sizes);
void ordered_product(const double* a, const double* panels, double* c, const OrderedProduct& sizes);

// x [rows, n], contiguous, becomes softmax(scale * x + bias) of each row; bias: rows of n numbers bias_stride
// apart (0: one for all), or null.
struct SoftmaxRows {
  int64_t rows = 0, n = 0, bias_stride = 0;
  double scale = 1;
};
void ordered_softmax(float* x, const float* bias, const SoftmaxRows& sizes);
void ordered_softmax(double* x, const double* bias, const SoftmaxRows& sizes);

// x / (1 + e^-x), and GELU's tanh form.
void ordered_silu(float* x, int64_t n);
void ordered_gelu(float* x, int64_t n);

// Of each row of x [rows, n], contiguous: the sum, and the sum of squares where squares is not null.
void row_sums(const float* x, double* sums, double* squares, int64_t rows, int64_t n);
void row_sums(const double* x, double* sums, double* squares, int64_t rows, int64_t n);

// Sums of numbers below 2^60 in multiples of 2^-44, exact, hence the same in any order: four parts of a sum
// whose own sums over ranks are exact in double. NaN for numbers beyond.
inline constexpr int kSumParts = 4;
void exact_parts(const double* x, int64_t n, double parts[kSumParts]);
double sum_of_parts(const double parts[kSumParts]);

}  // namespace atelier::kernels
