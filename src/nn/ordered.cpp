// Puts sums in one order in the place of the library's operators.
#include "nn/ordered.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <sstream>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "kernels/ordered.h"
#include "nn/ordered_types.h"
#include "nn/seams.h"

namespace atelier::nn {
namespace {

// Of the keys of a thread's modes the one that nothing in the library uses: it dispatches before all others.
constexpr auto kKey = c10::DispatchKey::TESTING_ONLY_GenericMode;

thread_local std::set<std::string>* noted = nullptr;

using at::OptionalIntArrayRef;
using at::Scalar;
using at::Tensor;
using Maybe = std::optional<Tensor>;

// The library's own operators while one of ours runs.
struct Inside {
  c10::impl::ExcludeDispatchKeyGuard guard{kKey};
};

// A copy to compute in: float, or double of double.
Tensor wide_copy(const Tensor& x) {
  ENSURE(x.is_floating_point() && x.is_cpu());
  return at::empty(x.sizes(), x.options().dtype(wide_type(x))).copy_(x);
}

Tensor added(const Tensor& y, const Tensor& to, const Scalar& beta, const Scalar& alpha) {
  if (alpha.toDouble() != 1) y.mul_(alpha);
  if (beta.toDouble() != 0)
    y.add_(beta.toDouble() == 1 ? to.to(y.scalar_type()) : to.to(y.scalar_type()) * beta);
  return y.to(to.scalar_type());
}

Tensor mm(const Tensor& a, const Tensor& b) {
  const Inside inside;
  return ordered_product(a, b).to(a.scalar_type());
}

Tensor addmm(const Tensor& to, const Tensor& a, const Tensor& b, const Scalar& beta, const Scalar& alpha) {
  const Inside inside;
  return added(ordered_product(a, b), to, beta, alpha);
}

Tensor& addmm_(Tensor& to, const Tensor& a, const Tensor& b, const Scalar& beta, const Scalar& alpha) {
  const Inside inside;
  return to.copy_(added(ordered_product(a, b), to, beta, alpha));
}

Tensor products(const Tensor& a, const Tensor& b) {
  std::vector<Tensor> each;
  for (int64_t i = 0; i < a.size(0); ++i) each.push_back(ordered_product(a[i], b[i]));
  return each.empty() ? at::zeros({0, a.size(1), b.size(2)}, a.options()) : at::stack(each);
}

Tensor bmm(const Tensor& a, const Tensor& b) {
  const Inside inside;
  return products(a, b).to(a.scalar_type());
}

Tensor baddbmm(const Tensor& to, const Tensor& a, const Tensor& b, const Scalar& beta, const Scalar& alpha) {
  const Inside inside;
  return added(products(a, b), to, beta, alpha);
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, double dropout,
                 bool causal, std::optional<double> scale, bool shares_keys) {
  const Inside inside;
  ENSURE(q.dim() == 4 && dropout == 0 && !causal && !shares_keys);
  Tensor bias;
  if (mask) bias = *mask;
  if (bias.defined() && bias.scalar_type() == at::kBool)
    bias = at::where(bias, 0.0, -std::numeric_limits<double>::infinity());
  return ordered_attention(q, k, v, bias, scale.value_or(1 / std::sqrt(static_cast<double>(q.size(3)))))
      .to(q.scalar_type());
}

Tensor convolution(const Tensor& given, const Tensor& given_weight, const Maybe& bias, at::IntArrayRef stride,
                   at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef,
                   int64_t groups) {
  const Inside inside;
  const bool is_flat = given.dim() == 4;
  ENSURE((is_flat || given.dim() == 5) && !transposed && groups == 1);
  const auto of_three = [&](at::IntArrayRef given_sizes, int64_t first) {
    auto out =
        given_sizes.size() == 1 ? std::vector<int64_t>(is_flat ? 2 : 3, given_sizes[0]) : given_sizes.vec();
    if (is_flat) out.insert(out.begin(), first);
    return out;
  };
  for (const int64_t d : dilation) ENSURE(d == 1);
  auto y = ordered_convolution(is_flat ? given.unsqueeze(2) : given,
                               is_flat ? given_weight.unsqueeze(2) : given_weight, of_three(stride, 1),
                               of_three(padding, 0));
  if (bias && bias->defined()) y.add_(bias->to(y.scalar_type()).view({1, -1, 1, 1, 1}));
  return (is_flat ? y.squeeze(2) : y).to(given.scalar_type());
}

// The last of the dimensions of what is contiguous.
Tensor with_last(const Tensor& x, std::vector<int64_t> last, std::vector<int64_t>* order = nullptr) {
  std::vector<int64_t> dims;
  for (int64_t& d : last) d = d < 0 ? d + x.dim() : d;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (std::find(last.begin(), last.end(), d) == last.end()) dims.push_back(d);
  }
  dims.insert(dims.end(), last.begin(), last.end());
  if (order) *order = dims;
  return x.permute(dims);
}

// Sums over some dimensions, all where there is none, in double.
Tensor summed(const Tensor& x, OptionalIntArrayRef given, bool keeps) {
  std::vector<int64_t> dims = given && !given->empty() ? given->vec() : std::vector<int64_t>();
  if (dims.empty()) dims.resize(static_cast<size_t>(x.dim())), std::iota(dims.begin(), dims.end(), 0);
  const auto rows = wide_copy(with_last(x, dims));
  int64_t n = 1;
  auto kept = x.sizes().vec();
  for (const int64_t d : dims)
    n *= x.size(d), kept[static_cast<size_t>(d < 0 ? d + x.dim() : d)] = keeps ? 1 : -1;
  std::erase(kept, -1);
  auto out = at::zeros(kept, x.options().dtype(at::kDouble));
  if (n == 0) return out;
  with_wide(rows.scalar_type(), [&](auto number) {
    kernels::row_sums(rows.const_data_ptr<decltype(number)>(), out.data_ptr<double>(), nullptr, out.numel(),
                      n);
  });
  return out;
}

Tensor sum_over(const Tensor& x, OptionalIntArrayRef dims, bool keeps, std::optional<at::ScalarType> type) {
  const Inside inside;
  if (!x.is_floating_point()) return x.sum(dims, keeps, type);  // exact
  return summed(x, dims, keeps).to(type.value_or(x.scalar_type()));
}

Tensor sum_all(const Tensor& x, std::optional<at::ScalarType> type) {
  return sum_over(x, {}, false, type);
}

Tensor mean_over(const Tensor& x, OptionalIntArrayRef dims, bool keeps, std::optional<at::ScalarType> type) {
  const Inside inside;
  const auto sum = summed(x, dims, keeps);
  return (sum / (static_cast<double>(x.numel()) / static_cast<double>(sum.numel())))
      .to(type.value_or(x.scalar_type()));
}

Tensor mean_all(const Tensor& x, std::optional<at::ScalarType> type) {
  return mean_over(x, {}, false, type);
}

Tensor length(const Tensor& x, const Scalar& order, OptionalIntArrayRef dims, bool keeps,
              std::optional<at::ScalarType> type) {
  const Inside inside;
  ENSURE(order.toDouble() == 2);
  return summed(x * x, dims, keeps).sqrt().to(type.value_or(x.scalar_type()));
}

Tensor softmax(const Tensor& x, int64_t dim, bool) {
  const Inside inside;
  std::vector<int64_t> order;
  const auto y = wide_copy(with_last(x, {dim}, &order));
  const int64_t n = y.size(-1);
  with_wide(y.scalar_type(), [&](auto number) {
    kernels::ordered_softmax(y.data_ptr<decltype(number)>(), nullptr, {n > 0 ? y.numel() / n : 0, n});
  });
  std::vector<int64_t> back(order.size());
  for (size_t i = 0; i < order.size(); ++i) back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return y.permute(back).to(x.scalar_type());
}

// f of every number in double, rounded once.
template <class F>
Tensor of_each(const Tensor& x, const F& f) {
  const auto y = wide_copy(x);
  with_wide(y.scalar_type(), [&](auto number) {
    using A = decltype(number);
    auto* const numbers = y.data_ptr<A>();
    at::parallel_for(0, y.numel(), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) numbers[i] = static_cast<A>(f(static_cast<double>(numbers[i])));
    });
  });
  return y.to(x.scalar_type());
}

double sigmoid_of(double v) {
  return 1 / (1 + std::exp(-v));
}

template <double (*F)(double)>
Tensor function(const Tensor& x) {
  const Inside inside;
  return of_each(x, F);
}

// Functions of whole pictures, in float by vectors.
Tensor fast(const Tensor& x, void (*in_float)(float*, int64_t), double (*in_double)(double)) {
  if (x.scalar_type() == at::kDouble) return of_each(x, in_double);
  const auto y = wide_copy(x);
  auto* const numbers = y.data_ptr<float>();
  at::parallel_for(0, y.numel(), 16384,
                   [&](int64_t begin, int64_t end) { in_float(numbers + begin, end - begin); });
  return y.to(x.scalar_type());
}

Tensor silu(const Tensor& x) {
  const Inside inside;
  return fast(x, kernels::ordered_silu, [](double v) { return v * sigmoid_of(v); });
}

Tensor gelu(const Tensor& x, c10::string_view form) {
  const Inside inside;
  if (form == "tanh")
    return fast(x, kernels::ordered_gelu, [](double v) {
      return v * sigmoid_of(v * (1.5957691216057308 + 0.07135481627260025 * v * v));
    });
  return of_each(x, [](double v) { return 0.5 * v * (1 + std::erf(v * 0.70710678118654752)); });
}

Tensor power(const Tensor& x, const Scalar& exponent) {
  const Inside inside;
  if (!x.is_floating_point()) return x.pow(exponent);
  const double e = exponent.toDouble();
  return e == 2 ? x * x : of_each(x, [e](double v) { return std::pow(v, e); });
}

Tensor power_of(const Scalar& base, const Tensor& x) {
  const Inside inside;
  return of_each(x, [b = base.toDouble()](double v) { return std::pow(b, v); });
}

// Operators that copy, compare, count, draw noise that is drawn whole, or round each number once; the norm of
// a row, which looks at that row alone; and those of previews.
const std::set<std::string, std::less<>>& exact_operators() {
  static const auto all = [] {
    std::istringstream words(
        " abs add sub mul div neg rsub clamp clamp_min clamp_max round floor ceil sqrt rsqrt reciprocal "
        "maximum minimum relu where masked_fill eq ne lt le gt ge isfinite bitwise_not bitwise_and "
        "bitwise_or logical_not logical_and all any amax amin max min argmax cat stack copy _to_copy "
        "clone fill zero index index_select index_put _index_put_impl embedding gather repeat roll flip "
        "constant_pad_nd upsample_nearest2d upsample_nearest3d empty empty_like empty_strided zeros full "
        "full_like zeros_like ones_like scalar_tensor arange linspace eye normal randn random tril triu "
        "cumsum cumprod native_layer_norm _local_scalar_dense resize set sort nan_to_num _unsafe_view "
        "_reshape_alias _copy_from_and_resize lift_fresh ones remainder upsample_bilinear2d as_strided "
        "equal is_same_size squeeze unsqueeze transpose t _linalg_solve_ex linalg_lu_factor_ex "
        "linalg_lu_solve ");
    return std::set<std::string, std::less<>>(std::istream_iterator<std::string>(words), {});
  }();
  return all;
}

bool is_view(const c10::FunctionSchema& schema) {
  for (const auto& r : schema.returns()) {
    if (r.alias_info() && !r.alias_info()->isWrite()) return true;
  }
  return false;
}

// Every operator that has no entry of its own.
void pass_on(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  constexpr std::string_view kLibrary = "aten::";
  if (noted && !op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) &&
      !is_view(op.schema())) {
    std::string_view name = op.operator_name().name;
    if (name.starts_with(kLibrary)) name.remove_prefix(kLibrary.size());
    const std::string_view base = name.ends_with("_") ? name.substr(0, name.size() - 1) : name;
    if (!exact_operators().contains(base)) noted->emplace(name);
  }
  op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey), stack);
}

// Once, for all threads: without effect where the key is not included. Never taken back: the dispatcher that
// would be told may have ended before.
void put_in_place() {
  static auto& all = *new torch::Library(torch::Library::IMPL, "_", kKey, __FILE__, __LINE__);
  static auto& aten = *new torch::Library(torch::Library::IMPL, "aten", kKey, __FILE__, __LINE__);
  [[maybe_unused]] static const bool done = [] {
    all.fallback(torch::CppFunction::makeFromBoxedFunction<&pass_on>());
    aten.impl("mm", mm).impl("addmm", addmm).impl("addmm_", addmm_).impl("bmm", bmm).impl("baddbmm", baddbmm);
    aten.impl("scaled_dot_product_attention", attention).impl("convolution", convolution);
    aten.impl("sum", sum_all).impl("sum.dim_IntList", sum_over).impl("linalg_vector_norm", length);
    aten.impl("mean", mean_all).impl("mean.dim", mean_over).impl("_softmax", softmax);
    aten.impl("silu", silu).impl("gelu", gelu).impl("sigmoid", function<sigmoid_of>);
    aten.impl("exp", function<std::exp>).impl("log", function<std::log>).impl("tanh", function<std::tanh>);
    aten.impl("sin", function<std::sin>).impl("cos", function<std::cos>).impl("expm1", function<std::expm1>);
    aten.impl("erf", function<std::erf>).impl("pow.Tensor_Scalar", power).impl("pow.Scalar", power_of);
    return true;
  }();
}

}  // namespace

OrderedArithmetic::OrderedArithmetic(std::set<std::string>* to)
    : guard_((put_in_place(), c10::DispatchKeySet(kKey))), before_(noted) {
  noted = to;
}

OrderedArithmetic::~OrderedArithmetic() {
  noted = before_;
}

bool OrderedArithmetic::is_on() {
  return c10::impl::tls_is_dispatch_key_included(kKey);
}

at::Tensor exact_sums(const at::Tensor& given, Reducer* others) {
  const auto terms = given.contiguous();
  auto parts = at::empty({terms.size(0), kernels::kSumParts}, terms.options());
  auto* const to = parts.data_ptr<double>();
  for (int64_t row = 0; row < terms.size(0); ++row)
    kernels::exact_parts(terms.const_data_ptr<double>() + row * terms.size(1), terms.size(1),
                         to + row * kernels::kSumParts);
  if (others) others->sum(parts);
  auto out = at::empty({terms.size(0)}, terms.options());
  for (int64_t row = 0; row < terms.size(0); ++row)
    out.data_ptr<double>()[row] =
        kernels::sum_of_parts(parts.const_data_ptr<double>() + row * kernels::kSumParts);
  return out;
}

}  // namespace atelier::nn
