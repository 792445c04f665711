// place on CUDA: norm over each head, rope, and stores into whichever target owns the head, in one pass.
//
// A power-of-two group of lanes holds one head, eight elements a lane, so that statistics are shuffles. A
// group stays with one token (its cos and sin in registers) and walks over heads, loading q, k and v
// together.
//
// Into targets of e4m3 the arithmetic is another: float, rounded after every operation as its CPU twin's is.
#include "base/check.h"
#include "kernels/cuda.h"
#include "kernels/place.cuh"

namespace atelier::kernels::cuda {
namespace {

using namespace placing;  // NOLINT: what this kernel's other half defines

constexpr int kThreads = 128;

template <LaneForm kForm, class T>
__device__ __forceinline__ void normalise(Arith<T> (&v)[2 * kPairs], const Args<T, T>& a,
                                          const LaneRule<T>& rule, const LaneHead<T>& weight, int lane) {
  using A = Arith<T>;
  const int d = a.head_dim;
  A mean = 0;
  if (rule.norm == Norm::kLayer) {
    A sum = 0;
#pragma unroll
    for (int i = 0; i < 2 * kPairs; ++i) sum += v[i];
    mean = group_sum(sum, a.lanes) * a.inverse_dim;
  }
  A squares = 0;
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) {
    if (element<kForm>(lane, i / 2) >= d) continue;
    v[i] -= mean;
    squares += v[i] * v[i];
  }
  const A inverse = inverse_root(group_sum(squares, a.lanes) * a.inverse_dim + static_cast<A>(rule.eps));
  A factor[2 * kPairs];
  unpack(factor, weight);
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) v[i] *= inverse * factor[i];
  if (rule.bias == nullptr) return;
  unpack(factor, load_head<kForm>(rule.bias, lane, d, true));
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) v[i] += factor[i];
}

// Norm and rope of one head of q or k.
template <LaneForm kForm, class T>
__device__ __forceinline__ LaneHead<T> prepare(const LaneHead<T>& head, const Args<T, T>& a,
                                               const LaneRule<T>& rule, const LaneHead<T>& weight,
                                               const Arith<T> (&cos)[kPairs], const Arith<T> (&sin)[kPairs],
                                               int lane) {
  using A = Arith<T>;
  A v[2 * kPairs];
  unpack(v, head);
  if (rule.norm != Norm::kNone) normalise<kForm>(v, a, rule, weight, lane);
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const A x0 = v[2 * p], x1 = v[2 * p + 1];
    v[2 * p] = x0 * cos[p] - x1 * sin[p];
    v[2 * p + 1] = x0 * sin[p] + x1 * cos[p];
  }
  return pack_of<T>(v);
}

// A lane's run of numbers, summed in order, and all runs of the head.
template <class F>
__device__ __forceinline__ double sum_of_runs(const float (&v)[2 * kPairs], bool held, int lanes,
                                              const F& f) {
  static_assert(2 * kPairs == e4m3::kRun, "a lane holds one run");
  float run = f(v[0]);
#pragma unroll
  for (int i = 1; i < 2 * kPairs; ++i) run = e4m3::add(run, f(v[i]));
  return group_sum(held ? static_cast<double>(run) : 0.0, lanes);
}

template <LaneForm kForm, class T>
__device__ __forceinline__ void normalise_for_bytes(float (&v)[2 * kPairs], const Args<T, E4m3>& a,
                                                    const LaneRule<T>& rule, const LaneHead<T>& weight,
                                                    int lane) {
  const int d = a.head_dim;
  const bool held = element<kForm>(lane, 0) < d;
  float mean = 0;
  if (rule.norm == Norm::kLayer)
    mean = e4m3::mean_of(sum_of_runs(v, held, a.lanes, [](float x) { return x; }), d);
  const double squares =
      sum_of_runs(v, held, a.lanes, [&](float x) { return e4m3::squared_distance(x, mean); });
  const float inverse = e4m3::inverse_deviation(squares, d, rule.eps);
  float factor[2 * kPairs];
  floats_of<T>(factor, weight);
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) v[i] = e4m3::normalised(v[i], mean, inverse, factor[i]);
  if (rule.bias == nullptr) return;
  floats_of<T>(factor, load_head<kForm>(rule.bias, lane, d, true));
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) v[i] = e4m3::add(v[i], factor[i]);
}

template <LaneForm kForm, class T>
__device__ __forceinline__ uint2 prepare(const LaneHead<T>& head, const Args<T, E4m3>& a,
                                         const LaneRule<T>& rule, const LaneHead<T>& weight,
                                         const Arith<T> (&cos)[kPairs], const Arith<T> (&sin)[kPairs],
                                         int lane) {
  float v[2 * kPairs];
  floats_of<T>(v, head);
  if (rule.norm != Norm::kNone) normalise_for_bytes<kForm>(v, a, rule, weight, lane);
  if (a.cos != nullptr) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const float x0 = v[2 * p], x1 = v[2 * p + 1];
      const float c = static_cast<float>(cos[p]), s = static_cast<float>(sin[p]);
      v[2 * p] = e4m3::turned_first(x0, x1, c, s);
      v[2 * p + 1] = e4m3::turned_second(x0, x1, c, s);
    }
  }
  return bytes_of(v);
}

// A head that is placed as it is.
template <class T, class Out>
__device__ __forceinline__ Placed<T, Out> as_it_is(const LaneHead<T>& head) {
  if constexpr (std::is_same_v<Out, E4m3>) {
    float v[2 * kPairs];
    floats_of<T>(v, head);
    return bytes_of(v);
  } else {
    return head;
  }
}

// One head of one row. The whole warp comes here together, for the shuffles; inactive groups neither load nor
// store.
template <LaneForm kForm, class T, class Out>
__device__ __forceinline__ void one_head(const Args<T, Out>& a, int64_t row, int64_t token, int64_t b, int h,
                                         bool active, const LaneHead<T>& weight_q,
                                         const LaneHead<T>& weight_k, const Arith<T> (&cos)[kPairs],
                                         const Arith<T> (&sin)[kPairs], int lane) {
  const int d = a.head_dim;
  const auto from = [&](const HeadStream<T>& s) {
    return s.data + token * s.token_stride + b * s.batch_stride + h * s.head_stride;
  };
  const bool has_q = a.q.data != nullptr, has_k = a.k.data != nullptr, has_v = a.v.data != nullptr;
  const LaneHead<T> raw_q = load_head<kForm>(from(a.q), lane, d, active && has_q);
  const LaneHead<T> raw_k = load_head<kForm>(from(a.k), lane, d, active && has_k);
  const LaneHead<T> raw_v = load_head<kForm>(from(a.v), lane, d, active && has_v);
  Placed<T, Out> q, k;
  if (has_q) q = prepare<kForm>(raw_q, a, a.rule_q, weight_q, cos, sin, lane);
  if (has_k) k = prepare<kForm>(raw_k, a, a.rule_k, weight_k, cos, sin, lane);
  if (!active) return;
  const auto v = as_it_is<T, Out>(raw_v);
  const HeadTarget<Out>& slot = a.slots[a.owner[h - a.first_head]];
  const int64_t width = static_cast<int64_t>(slot.heads) * d,
                at = static_cast<int64_t>(h - slot.first_head) * d;
  if (has_q) store_head<kForm>(slot.q + row * width + at, q, lane, d);
  if (has_k) store_head<kForm>(slot.kv + 2 * row * width + at, k, lane, d);
  if (has_v) store_head<kForm>(slot.kv + (2 * row + 1) * width + at, v, lane, d);
  const int64_t all = static_cast<int64_t>(a.all_heads) * d, within = static_cast<int64_t>(h) * d;
  for (int i = 0; i < a.kv_copy_count; ++i) {
    if (has_k) store_head<kForm>(a.kv_copies[i] + 2 * row * all + within, k, lane, d);
    if (has_v) store_head<kForm>(a.kv_copies[i] + (2 * row + 1) * all + within, v, lane, d);
  }
}

template <class T, class Out, LaneForm kForm>
__global__ void __launch_bounds__(kThreads) heads(const __grid_constant__ Args<T, Out> a) {
  using A = Arith<T>;
  const int lane = threadIdx.x % a.lanes, group = threadIdx.x / a.lanes;
  const int head_slot = group % a.head_slots, row_slot = group / a.head_slots;
  const int rows_at_once = kThreads / a.lanes / a.head_slots;
  const LaneHead<T> weight_q = load_weight<kForm>(a.rule_q, lane, a.head_dim);
  const LaneHead<T> weight_k = load_weight<kForm>(a.rule_k, lane, a.head_dim);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * rows_at_once; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * rows_at_once) {
    const int64_t row = first + row_slot;
    const bool inside = row < a.rows;
    const int64_t token = a.batch == 1 ? row : row / a.batch, b = a.batch == 1 ? 0 : row % a.batch;
    A cos[kPairs] = {1, 1, 1, 1}, sin[kPairs] = {0, 0, 0, 0};
    if (inside && a.cos != nullptr) {
      load_table<kForm>(cos, a.cos + token * (a.head_dim / 2), lane, a.head_dim);
      load_table<kForm>(sin, a.sin + token * (a.head_dim / 2), lane, a.head_dim);
    }
    for (int h0 = a.first_head; h0 < a.last_head; h0 += a.head_slots) {
      const int h = h0 + head_slot;
      one_head<kForm>(a, row, token, b, h, inside && h < a.last_head, weight_q, weight_k, cos, sin, lane);
    }
  }
}

// Can this source be read in packs of eight elements?
bool packed(const Source& s, const PlaceCall& c, int64_t unit) {
  return s.data == nullptr ||
         (aligned16(s.data) && (c.n == 1 || s.token_stride % unit == 0) &&
          (c.batch == 1 || s.batch_stride % unit == 0) && (c.heads == 1 || s.head_stride % unit == 0));
}

bool targets_aligned(const PlaceCall& c) {
  for (int64_t i = 0; i < c.target_count; ++i) {
    if (!aligned16(c.targets[i].q) || !aligned16(c.targets[i].kv)) return false;
  }
  for (int64_t i = 0; i < c.kv_copy_count; ++i) {
    if (!aligned16(c.kv_copies[i])) return false;
  }
  return true;
}

bool packed(const PlaceCall& c, int64_t unit) {
  if (c.head_dim % (2 * kPairs) != 0 || !packed(c.q, c, unit) || !packed(c.k, c, unit) ||
      !packed(c.v, c, unit)) {
    return false;
  }
  for (const void* p : {c.rule_q.weight, c.rule_q.bias, c.rule_k.weight, c.rule_k.bias, c.cos, c.sin}) {
    if (!aligned16(p)) return false;
  }
  return targets_aligned(c);
}

int power_of_two_from(int64_t least) {
  int power = 1;
  while (power < least) power *= 2;
  return power;
}

// The most heads at a time that leave at most an eighth of a block's work idle.
int head_slots(int64_t heads, int groups) {
  int slots = groups;
  while (slots > 1 && ceil_div(heads, slots) * slots * 8 > heads * 9) slots /= 2;
  return slots;
}

template <class T>
HeadStream<T> stream_of(const Source& s) {
  return {static_cast<const T*>(s.data), s.token_stride, s.batch_stride, s.head_stride};
}

template <class T>
LaneRule<T> rule_of(const HeadRule& r) {
  return {static_cast<const T*>(r.weight), static_cast<const T*>(r.bias), r.eps, r.norm};
}

template <class T, class Out>
void run(void* stream, const PlaceCall& c) {
  constexpr bool kBytes = std::is_same_v<Out, E4m3>;
  const bool in_packs = packed(c, 16 / static_cast<int64_t>(sizeof(T)));
  Args<T, Out> args{};
  args.q = stream_of<T>(c.q);
  args.k = stream_of<T>(c.k);
  args.v = stream_of<T>(c.v);
  args.rule_q = rule_of<T>(c.rule_q);
  args.rule_k = rule_of<T>(c.rule_k);
  args.cos = static_cast<const Arith<T>*>(c.cos);
  args.sin = static_cast<const Arith<T>*>(c.sin);
  args.rows = c.n * c.batch;
  args.batch = c.batch;
  args.head_dim = static_cast<int>(c.head_dim);
  args.inverse_dim = Arith<T>(1) / static_cast<Arith<T>>(c.head_dim);
  args.lanes = kBytes || in_packs ? power_of_two_from(c.head_dim / (2 * kPairs)) : 32;
  for (int64_t i = 0; i < c.target_count; ++i) {
    const Target& t = c.targets[i];
    args.slots[i] = {static_cast<Out*>(t.q), static_cast<Out*>(t.kv), static_cast<int>(t.first_head),
                     static_cast<int>(t.heads)};
  }
  for (int64_t i = 0; i < c.kv_copy_count; ++i) args.kv_copies[i] = static_cast<Out*>(c.kv_copies[i]);
  args.kv_copy_count = static_cast<int>(c.kv_copy_count);
  args.all_heads = static_cast<int>(c.heads);
  const int groups = kThreads / args.lanes;
  for (int64_t first = 0; first < c.heads; first += kHeadsPerLaunch) {
    const int64_t last = std::min<int64_t>(first + kHeadsPerLaunch, c.heads);
    args.first_head = static_cast<int>(first);
    args.last_head = static_cast<int>(last);
    for (int64_t i = 0; i < c.target_count; ++i) {
      const Target& t = c.targets[i];
      for (int64_t h = std::max(first, t.first_head); h < std::min(last, t.first_head + t.heads); ++h) {
        args.owner[h - first] = static_cast<uint8_t>(i);
      }
    }
    args.head_slots = head_slots(last - first, groups);
    const int64_t blocks = ceil_div(args.rows, groups / args.head_slots);
    constexpr LaneForm kOther = kBytes ? LaneForm::kRuns : LaneForm::kApart;
    launch(in_packs ? heads<T, Out, LaneForm::kPacks> : heads<T, Out, kOther>,
           dim3(static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 30))), kThreads, stream, args);
  }
}

}  // namespace

void place(void* stream, const PlaceCall& call) {
  with_type(call.dtype, [&](auto type) {
    using T = decltype(type);
    if (!call.is_e4m3) return run<T, T>(stream, call);
    ENSURE(targets_aligned(call));
    run<T, E4m3>(stream, call);
  });
}

}  // namespace atelier::kernels::cuda
