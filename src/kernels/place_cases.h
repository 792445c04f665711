// Cases for tests of place: sources cut from one fused projection, and targets for a given split of the
// heads.
#pragma once
#include <deque>

#include "kernels/kernels.h"
#include "kernels/test_support.h"

namespace atelier::kernels::testing {

struct PlaceCase {
  int64_t n = 5, batch = 2, heads = 6, dim = 16;
  Norm norm = Norm::kRms;
  bool rope = true, weights = true, asks = true;
  std::vector<int64_t> split = {6};  // heads per target, in head order
  bool reversed = false;             // targets listed last first
  int64_t skew = 0;                  // the projection starts this many elements into its buffer
  int64_t copies = 0;                // of keys and values of all heads
  bool is_e4m3 = false;  // buffers of targets, as wide as for the type, hold bytes from their begin on
  std::string text() const {
    std::string s = "n=" + std::to_string(n) + " B=" + std::to_string(batch) +
                    " heads=" + std::to_string(heads) + " d=" + std::to_string(dim) +
                    " norm=" + std::to_string(static_cast<int>(norm)) + " rope=" + std::to_string(rope) +
                    " skew=" + std::to_string(skew) + " copies=" + std::to_string(copies) + " split=";
    for (const int64_t h : split) s += std::to_string(h) + ",";
    return s;
  }
};

// Everything that one call needs, in host memory. The fused projection is [n, B, 3 heads d + 8] of which q,
// k, v are the first three slices.
struct PlaceData {
  PlaceData(const PlaceCase& c, ElementType t)
      : row(3 * c.heads * c.dim + 8),
        fused(normal(t, c.n * c.batch * row + c.skew, 1, 0.3, 2)),
        weight_q(normal(t, c.dim, 2, 1, 0.2)),
        weight_k(normal(t, c.dim, 3, 1, 0.2)),
        bias_q(normal(t, c.dim, 4)),
        bias_k(normal(t, c.dim, 5)),
        cos(normal(table_type(t), c.n * c.dim / 2, 6)),
        sin(normal(table_type(t), c.n * c.dim / 2, 7)) {
    int64_t first = 0;
    for (const int64_t heads : c.split) {
      q.emplace_back(t, c.n * c.batch * heads * c.dim);
      kv.emplace_back(t, 2 * c.n * c.batch * heads * c.dim);
      firsts.push_back(first);
      first += heads;
    }
    for (int64_t i = 0; i < c.copies; ++i) kv_copies.emplace_back(t, 2 * c.n * c.batch * c.heads * c.dim);
  }

  int64_t row;
  Buffer fused, weight_q, weight_k, bias_q, bias_k, cos, sin;
  std::deque<Buffer> q, kv;  // per target
  std::deque<Buffer> kv_copies;
  std::vector<void*> copies_at;  // their addresses, for the last call
  std::vector<int64_t> firsts;
};

// The call, with `at(buffer, element)` giving the address to use: host memory, or its copy on a device.
template <class Address>
Placement placement(const PlaceCase& c, PlaceData& data, std::vector<Target>& targets, const Address& at) {
  targets.clear();
  for (size_t i = 0; i < c.split.size(); ++i) {
    targets.push_back({c.asks ? at(data.q[i], 0) : nullptr, at(data.kv[i], 0), data.firsts[i], c.split[i]});
  }
  if (c.reversed) std::reverse(targets.begin(), targets.end());
  const int64_t width = c.heads * c.dim;
  const auto source = [&](int64_t which) {
    return Source{at(data.fused, c.skew + which * width), c.batch * data.row, data.row, c.dim};
  };
  Placement p{
      .q = c.asks ? source(0) : Source{}, .k = source(1), .v = source(2), .norm_q = c.norm, .norm_k = c.norm};
  if (c.weights && c.norm != Norm::kNone) {
    p.weight_q = at(data.weight_q, 0);
    p.weight_k = at(data.weight_k, 0);
    if (c.norm == Norm::kLayer) p.bias_q = at(data.bias_q, 0), p.bias_k = at(data.bias_k, 0);
  }
  p.eps_k = 1e-5;
  if (c.rope) {
    p.cos = static_cast<const float*>(at(data.cos, 0));
    p.sin = static_cast<const float*>(at(data.sin, 0));
  }
  p.n = c.n, p.batch = c.batch, p.heads = c.heads, p.head_dim = c.dim;
  p.targets = targets;
  data.copies_at.clear();
  for (Buffer& copy : data.kv_copies) data.copies_at.push_back(at(copy, 0));
  p.kv_copies = data.copies_at;
  p.is_e4m3 = c.is_e4m3;
  return p;
}

inline std::vector<PlaceCase> place_cases() {
  std::vector<PlaceCase> cases = {
      {.n = 0},
      {.heads = 0, .split = {}},
      {.heads = 0, .split = {0, 0}},
      {.batch = 0},
      {.norm = Norm::kNone},
      {.norm = Norm::kNone, .rope = false},
      {.norm = Norm::kLayer},
      {.norm = Norm::kLayer, .weights = false},
      {.rope = false, .weights = false},
      {.asks = false},
      {.split = {0, 1, 0, 2, 3, 0}},
      {.split = {1, 5}, .reversed = true},
      {.n = 7, .batch = 1, .heads = 5, .dim = 64, .split = {2, 1, 1, 1}},
      {.n = 3, .batch = 1, .heads = 24, .dim = 128, .split = {3, 3, 3, 3, 3, 3, 3, 3}},
      {.n = 2, .batch = 3, .heads = 24, .dim = 128, .norm = Norm::kLayer, .split = {24}},
      {.n = 2, .batch = 1, .heads = 130, .dim = 16, .split = {64, 2, 64}},
      {.n = 2, .batch = 1, .heads = 64, .dim = 8, .split = std::vector<int64_t>(64, 1)},
      {.heads = 3, .dim = 64, .split = {3}, .skew = 1},
      {.copies = 1},
      {.n = 7, .batch = 1, .heads = 24, .dim = 128, .split = {24}, .copies = 3},
      {.n = 2, .batch = 1, .heads = 130, .dim = 16, .split = {64, 2, 64}, .copies = 2},
      {.norm = Norm::kNone, .rope = false, .copies = 1},
  };
  for (const int64_t dim : {2, 6, 24, 32, 72, 80, 88, 90, 250, 256}) {
    cases.push_back({.heads = 3, .dim = dim, .split = {2, 1}});
    cases.push_back({.n = 3, .batch = 1, .heads = 9, .dim = dim, .norm = Norm::kLayer, .split = {4, 5}});
  }
  return cases;
}

// Those whose heads can go as bytes, and heads of other widths.
inline std::vector<PlaceCase> byte_cases() {
  std::vector<PlaceCase> cases;
  const auto add = [&](const PlaceCase& c) { cases.push_back(c), cases.back().is_e4m3 = true; };
  for (const PlaceCase& c : place_cases()) {
    if (c.dim % 16 == 0) add(c);
  }
  for (const int64_t dim : {48, 64, 96, 112, 128, 192, 240}) {
    add({.heads = 3, .dim = dim, .norm = Norm::kLayer, .split = {2, 1}, .skew = 3, .copies = 1});
    add({.heads = 3, .dim = dim, .norm = Norm::kNone, .rope = false, .split = {2, 1}});
  }
  return cases;
}

}  // namespace atelier::kernels::testing
