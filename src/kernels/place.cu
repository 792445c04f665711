// place on CUDA: norm over each head, rope, and stores into whichever target owns the head, in one pass.
//
// A power-of-two group of lanes holds one head, eight elements a lane, so that statistics are shuffles. A
// group stays with one token (its cos and sin in registers) and walks over heads, loading q, k and v
// together.
#include "kernels/cuda.h"
#include "kernels/device.cuh"

namespace atelier::kernels::cuda {
namespace {

constexpr int kThreads = 128, kPairs = 4;
constexpr int kHeadsPerLaunch = 128;

// What a lane holds of one head.
template <class T>
using Head = Pack<T, 2 * kPairs>;

template <class T>
struct Stream {
  const T* data;
  int64_t token_stride, batch_stride, head_stride;
};

template <class T>
struct Rule {
  const T *weight, *bias;
  Arith<T> eps;
  Norm norm;
};

template <class T>
struct HeadTarget {
  T *q, *kv;
  int first_head, heads;
};

template <class T>
struct Args {
  Stream<T> q, k, v;
  Rule<T> rule_q, rule_k;
  const Arith<T>*cos, *sin;
  int64_t rows, batch;        // rows = tokens x batch
  int first_head, last_head;  // this launch's heads
  int head_dim;
  Arith<T> inverse_dim;
  int lanes;       // threads per head
  int head_slots;  // heads that a block works on at a time, a power of two
  HeadTarget<T> slots[kMaxTargets];
  uint8_t owner[kHeadsPerLaunch];  // head - first_head -> slot
  T* kv_copies[kMaxTargets];       // of all heads
  int kv_copy_count, all_heads;
};
static_assert(sizeof(Args<double>) <= 4096, "kernel parameters end at 4 KB on the oldest toolkits");

// Which elements a lane holds: pairs p = 0..3 start at element(p), and exist where that is inside the head.
template <bool kVector>
__device__ __forceinline__ int element(int lane, int p) {
  return kVector ? lane * 2 * kPairs + 2 * p : 2 * (lane + 32 * p);
}

// A lane's elements of one head; zeros where it has none.
template <bool kVector, class T>
__device__ __forceinline__ Head<T> load_head(const T* from, int lane, int d, bool active) {
  Arith<T> v[2 * kPairs] = {};
  if constexpr (kVector) {
    if (active && element<true>(lane, 0) < d) return load_pack<2 * kPairs>(from + element<true>(lane, 0));
  } else {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int at = element<false>(lane, p);
      if (!active || at >= d) continue;
      v[2 * p] = load(from[at]);
      v[2 * p + 1] = load(from[at + 1]);
    }
  }
  return pack_of<T>(v);
}

template <bool kVector, class T>
__device__ __forceinline__ void store_head(T* to, const Head<T>& head, int lane, int d) {
  if constexpr (kVector) {
    if (element<true>(lane, 0) < d) store_pack(to + element<true>(lane, 0), head);
  } else {
    Arith<T> v[2 * kPairs];
    unpack(v, head);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int at = element<false>(lane, p);
      if (at >= d) continue;
      to[at] = round_to<T>(v[2 * p]);
      to[at + 1] = round_to<T>(v[2 * p + 1]);
    }
  }
}

// One lane's share of cos or sin.
template <bool kVector, class A>
__device__ __forceinline__ void load_table(A (&to)[kPairs], const A* from, int lane, int d) {
  if constexpr (kVector) {
    if (element<true>(lane, 0) >= d) return;
    unpack(to, load_pack<kPairs>(from + lane * kPairs));
  } else {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int at = element<false>(lane, p);
      if (at < d) to[p] = from[at / 2];
    }
  }
}

template <bool kVector, class T>
__device__ __forceinline__ Head<T> load_weight(const Rule<T>& rule, int lane, int d) {
  if (rule.weight != nullptr) return load_head<kVector>(rule.weight, lane, d, true);
  const Arith<T> ones[2 * kPairs] = {1, 1, 1, 1, 1, 1, 1, 1};
  return pack_of<T>(ones);
}

template <bool kVector, class T>
__device__ __forceinline__ void normalise(Arith<T> (&v)[2 * kPairs], const Args<T>& a, const Rule<T>& rule,
                                          const Head<T>& weight, int lane) {
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
    if (element<kVector>(lane, i / 2) >= d) continue;
    v[i] -= mean;
    squares += v[i] * v[i];
  }
  const A inverse = inverse_root(group_sum(squares, a.lanes) * a.inverse_dim + rule.eps);
  A factor[2 * kPairs];
  unpack(factor, weight);
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) v[i] *= inverse * factor[i];
  if (rule.bias == nullptr) return;
  unpack(factor, load_head<kVector>(rule.bias, lane, d, true));
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) v[i] += factor[i];
}

// Norm and rope of one head of q or k.
template <bool kVector, class T>
__device__ __forceinline__ void prepare(Head<T>& head, const Args<T>& a, const Rule<T>& rule,
                                        const Head<T>& weight, const Arith<T> (&cos)[kPairs],
                                        const Arith<T> (&sin)[kPairs], int lane) {
  using A = Arith<T>;
  A v[2 * kPairs];
  unpack(v, head);
  if (rule.norm != Norm::kNone) normalise<kVector>(v, a, rule, weight, lane);
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const A x0 = v[2 * p], x1 = v[2 * p + 1];
    v[2 * p] = x0 * cos[p] - x1 * sin[p];
    v[2 * p + 1] = x0 * sin[p] + x1 * cos[p];
  }
  head = pack_of<T>(v);
}

// One head of one row. The whole warp comes here together, for the shuffles; inactive groups neither load nor
// store.
template <bool kVector, class T>
__device__ __forceinline__ void one_head(const Args<T>& a, int64_t row, int64_t token, int64_t b, int h,
                                         bool active, const Head<T>& weight_q, const Head<T>& weight_k,
                                         const Arith<T> (&cos)[kPairs], const Arith<T> (&sin)[kPairs],
                                         int lane) {
  const int d = a.head_dim;
  const auto from = [&](const Stream<T>& s) {
    return s.data + token * s.token_stride + b * s.batch_stride + h * s.head_stride;
  };
  const bool has_q = a.q.data != nullptr, has_k = a.k.data != nullptr, has_v = a.v.data != nullptr;
  Head<T> q = load_head<kVector>(from(a.q), lane, d, active && has_q);
  Head<T> k = load_head<kVector>(from(a.k), lane, d, active && has_k);
  const Head<T> v = load_head<kVector>(from(a.v), lane, d, active && has_v);
  if (has_q) prepare<kVector>(q, a, a.rule_q, weight_q, cos, sin, lane);
  if (has_k) prepare<kVector>(k, a, a.rule_k, weight_k, cos, sin, lane);
  if (!active) return;
  const HeadTarget<T>& slot = a.slots[a.owner[h - a.first_head]];
  const int64_t width = static_cast<int64_t>(slot.heads) * d,
                at = static_cast<int64_t>(h - slot.first_head) * d;
  if (has_q) store_head<kVector>(slot.q + row * width + at, q, lane, d);
  if (has_k) store_head<kVector>(slot.kv + 2 * row * width + at, k, lane, d);
  if (has_v) store_head<kVector>(slot.kv + (2 * row + 1) * width + at, v, lane, d);
  const int64_t all = static_cast<int64_t>(a.all_heads) * d, within = static_cast<int64_t>(h) * d;
  for (int i = 0; i < a.kv_copy_count; ++i) {
    if (has_k) store_head<kVector>(a.kv_copies[i] + 2 * row * all + within, k, lane, d);
    if (has_v) store_head<kVector>(a.kv_copies[i] + (2 * row + 1) * all + within, v, lane, d);
  }
}

template <class T, bool kVector>
__global__ void __launch_bounds__(kThreads) heads(const __grid_constant__ Args<T> a) {
  using A = Arith<T>;
  const int lane = threadIdx.x % a.lanes, group = threadIdx.x / a.lanes;
  const int head_slot = group % a.head_slots, row_slot = group / a.head_slots;
  const int rows_at_once = kThreads / a.lanes / a.head_slots;
  const Head<T> weight_q = load_weight<kVector>(a.rule_q, lane, a.head_dim);
  const Head<T> weight_k = load_weight<kVector>(a.rule_k, lane, a.head_dim);
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * rows_at_once; first < a.rows;
       first += static_cast<int64_t>(gridDim.x) * rows_at_once) {
    const int64_t row = first + row_slot;
    const bool inside = row < a.rows;
    const int64_t token = a.batch == 1 ? row : row / a.batch, b = a.batch == 1 ? 0 : row % a.batch;
    A cos[kPairs] = {1, 1, 1, 1}, sin[kPairs] = {0, 0, 0, 0};
    if (inside && a.cos != nullptr) {
      load_table<kVector>(cos, a.cos + token * (a.head_dim / 2), lane, a.head_dim);
      load_table<kVector>(sin, a.sin + token * (a.head_dim / 2), lane, a.head_dim);
    }
    for (int h0 = a.first_head; h0 < a.last_head; h0 += a.head_slots) {
      const int h = h0 + head_slot;
      one_head<kVector>(a, row, token, b, h, inside && h < a.last_head, weight_q, weight_k, cos, sin, lane);
    }
  }
}

// Can this source be read in packs of eight elements?
bool packed(const Source& s, const PlaceCall& c, int64_t unit) {
  return s.data == nullptr ||
         (aligned16(s.data) && (c.n == 1 || s.token_stride % unit == 0) &&
          (c.batch == 1 || s.batch_stride % unit == 0) && (c.heads == 1 || s.head_stride % unit == 0));
}

bool packed(const PlaceCall& c, int64_t unit) {
  if (c.head_dim % (2 * kPairs) != 0 || !packed(c.q, c, unit) || !packed(c.k, c, unit) ||
      !packed(c.v, c, unit)) {
    return false;
  }
  for (const void* p : {c.rule_q.weight, c.rule_q.bias, c.rule_k.weight, c.rule_k.bias, c.cos, c.sin}) {
    if (!aligned16(p)) return false;
  }
  for (int64_t i = 0; i < c.target_count; ++i) {
    if (!aligned16(c.targets[i].q) || !aligned16(c.targets[i].kv)) return false;
  }
  for (int64_t i = 0; i < c.kv_copy_count; ++i) {
    if (!aligned16(c.kv_copies[i])) return false;
  }
  return true;
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
Stream<T> stream_of(const Source& s) {
  return {static_cast<const T*>(s.data), s.token_stride, s.batch_stride, s.head_stride};
}

template <class T>
Rule<T> rule_of(const HeadRule& r) {
  return {static_cast<const T*>(r.weight), static_cast<const T*>(r.bias), static_cast<Arith<T>>(r.eps),
          r.norm};
}

template <class T>
void run(void* stream, const PlaceCall& c) {
  const bool vector = packed(c, 16 / static_cast<int64_t>(sizeof(T)));
  Args<T> args{};
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
  args.lanes = vector ? power_of_two_from(c.head_dim / (2 * kPairs)) : 32;
  for (int64_t i = 0; i < c.target_count; ++i) {
    const Target& t = c.targets[i];
    args.slots[i] = {static_cast<T*>(t.q), static_cast<T*>(t.kv), static_cast<int>(t.first_head),
                     static_cast<int>(t.heads)};
  }
  for (int64_t i = 0; i < c.kv_copy_count; ++i) args.kv_copies[i] = static_cast<T*>(c.kv_copies[i]);
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
    launch(vector ? heads<T, true> : heads<T, false>,
           dim3(static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 30))), kThreads, stream, args);
  }
}

}  // namespace

void place(void* stream, const PlaceCall& call) {
  switch (call.dtype) {
    case ElementType::kF32:
      return run<float>(stream, call);
    case ElementType::kF64:
      return run<double>(stream, call);
    case ElementType::kBF16:
      return run<__nv_bfloat16>(stream, call);
    case ElementType::kF16:
      return run<__half>(stream, call);
  }
}

}  // namespace atelier::kernels::cuda
