// One seed, one picture, to the bit: arithmetic whose results do not depend on what is computed beside them.
//
// The library's products, convolutions and attention kernels choose the order of a sum by the sizes of all
// their operands, and its vectorised functions give other bits where a row ends. So a rank that holds a part
// of the rows, or a batch of two, rounds differently.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <set>
#include <span>
#include <string>

namespace atelier::nn {

class Reducer;

// While one lives, the library's operators of this thread that sum, or that compute a function of each
// number, are those of kernels/ordered.h; on the CPU. All others run as they are: they copy, or round each
// number once. Whatever is neither of these nor known to be exact is noted.
class OrderedArithmetic {
 public:
  // noted: gets names of operators; may be null.
  explicit OrderedArithmetic(std::set<std::string>* noted);
  ~OrderedArithmetic();
  OrderedArithmetic(const OrderedArithmetic&) = delete;
  OrderedArithmetic& operator=(const OrderedArithmetic&) = delete;

  static bool is_on();  // in this thread

 private:
  c10::impl::IncludeDispatchKeyGuard guard_;
  std::set<std::string>* before_;
};

// Sums of rows [rows, n], double, of all ranks that hold terms of them, [rows]: exact to 2^-44, so in
// whatever order they are taken. others: null for one rank. Terms of 2^60 or more make their sum NaN.
at::Tensor exact_sums(const at::Tensor& terms, Reducer* others);

// a [rows, k] b [k, n], of any strides and floating types -> float, of double double. Every number is summed
// over k in order.
at::Tensor ordered_product(const at::Tensor& a, const at::Tensor& b);
// softmax(scale q k^T + bias) v. q [B, h, n, d], k [B, h, m, d], v [B, h, m, e]; bias [B, h, n, m], may be
// undefined. -> [B, h, n, e], float or double as above.
at::Tensor ordered_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& bias, double scale);
// x [B, C, frames, rows, W] with zeros around it, padding of them on either side of each of the last three
// dimensions; weight [out, C, kf, kh, kw]. -> [B, out, ...], float or double as above.
at::Tensor ordered_convolution(const at::Tensor& x, const at::Tensor& weight, std::span<const int64_t> stride,
                               std::span<const int64_t> padding);

}  // namespace atelier::nn
