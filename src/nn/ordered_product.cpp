// Products, attention and convolution of tensors by kernels/ordered.h. How the work is shared among threads
// does not matter to the result.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/check.h"
#include "kernels/ordered.h"
#include "nn/ordered.h"
#include "nn/ordered_types.h"

namespace atelier::nn {
namespace {

constexpr int64_t kRun = 192;  // queries or pixels at a time

int64_t panels_of(int64_t n) {
  return (n + kernels::kOrderedColumns - 1) / kernels::kOrderedColumns;
}

// b [k, n] of the type that is computed in.
template <class A>
void pack(const at::Tensor& b, A* panels, int64_t begin, int64_t end) {
  kernels::pack_panels(b.const_data_ptr<A>(), panels,
                       {b.size(0), b.size(1), b.stride(0), b.stride(1), begin, end});
}

struct Extents {
  int64_t frames, rows, cols;
};

// Pictures and kernels of a convolution.
struct Convolution {
  int64_t channels;
  Extents size, kernel, made, stride, padding;
};

// A panel of what is seen of `x` from positions of the result, from `first` on: [channels, kernel][columns].
template <class A>
void gather(const A* x, A* panel, const Convolution& c, int64_t first) {
  constexpr int64_t kColumns = kernels::kOrderedColumns;
  const int64_t positions = c.made.frames * c.made.rows * c.made.cols,
                count = std::min(kColumns, positions - first);
  Extents at[kColumns];  // where each position's surroundings begin, perhaps before the picture
  for (int64_t p = 0; p < count; ++p) {
    const int64_t n = first + p, row = n / c.made.cols;
    at[p] = {row / c.made.rows * c.stride.frames - c.padding.frames,
             row % c.made.rows * c.stride.rows - c.padding.rows,
             n % c.made.cols * c.stride.cols - c.padding.cols};
  }
  const auto& last = at[count - 1];
  const bool is_run =
      count == kColumns && c.stride.cols == 1 && last.rows == at[0].rows && last.frames == at[0].frames;
  for (int64_t channel = 0; channel < c.channels; ++channel) {
    const A* const plane = x + channel * c.size.frames * c.size.rows * c.size.cols;
    for (int64_t f = 0; f < c.kernel.frames; ++f) {
      for (int64_t y = 0; y < c.kernel.rows; ++y) {
        for (int64_t i = 0; i < c.kernel.cols; ++i, panel += kColumns) {
          const auto number = [&](const Extents& from) {
            const int64_t frame = from.frames + f, row = from.rows + y, col = from.cols + i;
            const bool is_there = frame >= 0 && frame < c.size.frames && row >= 0 && row < c.size.rows &&
                                  col >= 0 && col < c.size.cols;
            return is_there ? plane + (frame * c.size.rows + row) * c.size.cols + col : nullptr;
          };
          const A *const begin = number(at[0]), *const end = is_run ? number(last) : nullptr;
          if (begin && end) {
            std::copy_n(begin, kColumns, panel);
            continue;
          }
          for (int64_t p = 0; p < kColumns; ++p) panel[p] = 0;
          for (int64_t p = 0; p < count; ++p) {
            if (const A* const here = number(at[p])) panel[p] = *here;
          }
        }
      }
    }
  }
}

}  // namespace

at::Tensor ordered_product(const at::Tensor& given_a, const at::Tensor& given_b) {
  const auto type = wide_type(given_a);
  const auto a = given_a.to(type), b = given_b.to(type);
  const int64_t rows = a.size(0), k = a.size(1), n = b.size(1), panels = panels_of(n);
  ENSURE(b.size(0) == k);
  if (k == 0) return at::zeros({rows, n}, a.options());
  auto c = at::empty({rows, n}, a.options());
  const auto packed = at::empty({panels * k * kernels::kOrderedColumns}, a.options());
  with_wide(type, [&](auto number) {
    using A = decltype(number);
    A* const all = packed.data_ptr<A>();
    at::parallel_for(0, panels, 8, [&](int64_t begin, int64_t end) { pack(b, all, begin, end); });
    const auto part = [&](int64_t row, int64_t count, int64_t column, int64_t columns) {
      kernels::ordered_product(a.const_data_ptr<A>() + row * a.stride(0), all + column * k,
                               c.data_ptr<A>() + row * n + column,
                               {count, k, columns, a.stride(0), a.stride(1), n});
    };
    if (rows >= n) {
      at::parallel_for(0, rows, kRun, [&](int64_t begin, int64_t end) { part(begin, end - begin, 0, n); });
      return;
    }
    at::parallel_for(0, panels, 8, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kernels::kOrderedColumns,
                    last = std::min(n, end * kernels::kOrderedColumns);
      part(0, rows, first, last - first);
    });
  });
  return c;
}

at::Tensor ordered_attention(const at::Tensor& given_q, const at::Tensor& given_k, const at::Tensor& given_v,
                             const at::Tensor& bias, double scale) {
  const auto type = wide_type(given_q);
  const auto q = given_q.to(type), keys = given_k.to(type).transpose(2, 3), v = given_v.to(type);
  const int64_t heads = q.size(1), all = q.size(0) * heads, n = q.size(2), d = q.size(3);
  const int64_t m = v.size(2), width = v.size(3);
  ENSURE(keys.size(3) == m && keys.size(2) == d);
  if (m == 0) return at::zeros({q.size(0), heads, n, width}, q.options());
  auto out = at::empty({q.size(0), heads, n, width}, q.options());
  const int64_t of_keys = panels_of(m) * d * kernels::kOrderedColumns;
  const int64_t of_values = panels_of(width) * m * kernels::kOrderedColumns;
  const auto packed = at::empty({all, of_keys + of_values}, q.options());
  const auto plus = bias.defined() ? bias.to(type).expand({q.size(0), heads, n, m}) : bias;
  const auto rows_of_plus = plus.defined() && plus.stride(3) != 1 && m > 1 ? plus.contiguous() : plus;
  const int64_t runs = (n + kRun - 1) / kRun;
  with_wide(type, [&](auto number) {
    using A = decltype(number);
    A* const panels = packed.data_ptr<A>();
    at::parallel_for(0, all, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        A* const to = panels + i * (of_keys + of_values);
        pack(keys.select(0, i / heads).select(0, i % heads), to, 0, panels_of(m));
        pack(v.select(0, i / heads).select(0, i % heads), to + of_keys, 0, panels_of(width));
      }
    });
    at::parallel_for(0, all * runs, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> scores(static_cast<size_t>(kRun * m));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / runs / heads, h = i / runs % heads, first = i % runs * kRun,
                      rows = std::min(kRun, n - first);
        const A* const of_head = panels + i / runs * (of_keys + of_values);
        const A* const asked =
            q.const_data_ptr<A>() + b * q.stride(0) + h * q.stride(1) + first * q.stride(2);
        kernels::ordered_product(asked, of_head, scores.data(), {rows, d, m, q.stride(2), q.stride(3), m});
        const A* const added = rows_of_plus.defined()
                                   ? rows_of_plus.const_data_ptr<A>() + b * rows_of_plus.stride(0) +
                                         h * rows_of_plus.stride(1) + first * rows_of_plus.stride(2)
                                   : nullptr;
        kernels::ordered_softmax(scores.data(), added, {rows, m, added ? rows_of_plus.stride(2) : 0, scale});
        kernels::ordered_product(scores.data(), of_head + of_keys,
                                 out.data_ptr<A>() + (i / runs * n + first) * width,
                                 {rows, m, width, m, 1, width});
      }
    });
  });
  return out;
}

at::Tensor ordered_convolution(const at::Tensor& given, const at::Tensor& given_weight,
                               std::span<const int64_t> stride, std::span<const int64_t> padding) {
  const auto type = wide_type(given);
  const auto x = given.to(type).contiguous(), weight = given_weight.to(type).contiguous();
  const int64_t outs = weight.size(0), k = weight.numel() / std::max<int64_t>(1, outs);
  const auto extents = [](std::span<const int64_t> of) { return Extents{of[0], of[1], of[2]}; };
  Convolution c{
      x.size(1),       extents(x.sizes().slice(2)), extents(weight.sizes().slice(2)), {}, extents(stride),
      extents(padding)};
  ENSURE(weight.size(1) == c.channels && k > 0);
  const auto fits = [](int64_t all, int64_t taps, int64_t zeros, int64_t step) {
    return std::max<int64_t>(0, (all + 2 * zeros - taps) / step + 1);
  };
  c.made = {fits(c.size.frames, c.kernel.frames, c.padding.frames, c.stride.frames),
            fits(c.size.rows, c.kernel.rows, c.padding.rows, c.stride.rows),
            fits(c.size.cols, c.kernel.cols, c.padding.cols, c.stride.cols)};
  const int64_t positions = c.made.frames * c.made.rows * c.made.cols, runs = (positions + kRun - 1) / kRun;
  auto out = at::empty({x.size(0), outs, c.made.frames, c.made.rows, c.made.cols}, x.options());
  with_wide(type, [&](auto number) {
    using A = decltype(number);
    at::parallel_for(0, x.size(0) * runs, 1, [&](int64_t begin, int64_t end) {
      std::vector<A> seen(static_cast<size_t>(kRun * k));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / runs, first = i % runs * kRun, count = std::min(kRun, positions - first);
        for (int64_t p = 0; p < count; p += kernels::kOrderedColumns)
          gather(x.const_data_ptr<A>() + b * x.stride(0), seen.data() + p * k, c, first + p);
        kernels::ordered_product(weight.const_data_ptr<A>(), seen.data(),
                                 out.data_ptr<A>() + b * outs * positions + first,
                                 {outs, k, count, k, 1, positions});
      }
    });
  });
  return out;
}

}  // namespace atelier::nn
