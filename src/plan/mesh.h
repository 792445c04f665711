// Which rank sits where: pure arithmetic on the degrees of a run. Groups of ranks as resources are comm's.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace atelier::plan {

// Outer to inner: neighbours along kTensor have neighbouring global ranks.
enum class Axis : uint8_t { kData, kCfg, kPipeline, kRing, kGather, kUlysses, kTensor };
inline constexpr int kAxes = 7;

// The word for an axis in messages and in --strategy: "data", "cfg", "pipefusion", "ring", "kv_gather",
// "ulysses", "tensor".
std::string_view axis_name(Axis axis);

class AxisSet {
 public:
  constexpr AxisSet() = default;
  constexpr AxisSet(std::initializer_list<Axis> axes) {
    for (Axis axis : axes) bits_ |= bit(axis);
  }
  constexpr bool contains(Axis axis) const { return (bits_ & bit(axis)) != 0; }
  constexpr AxisSet operator|(AxisSet other) const {
    other.bits_ |= bits_;
    return other;
  }
  constexpr bool operator==(const AxisSet&) const = default;

 private:
  static constexpr unsigned bit(Axis axis) { return 1u << static_cast<unsigned>(axis); }
  unsigned bits_ = 0;
};

// The axes that cut tokens; their group's order is the sequence rank.
inline constexpr AxisSet kSequence{Axis::kRing, Axis::kGather, Axis::kUlysses};

using Coordinates = std::array<int, kAxes>;  // one index per axis, outer to inner

class Mesh {
 public:
  // sizes: one degree per axis, outer to inner, each >= 1; rank in [0, product of sizes).
  Mesh(std::array<int, kAxes> sizes, int rank);

  int world() const;
  int rank() const { return rank_; }
  int size(Axis axis) const { return sizes_[static_cast<int>(axis)]; }
  int index(Axis axis) const { return at_[static_cast<int>(axis)]; }
  const Coordinates& coordinates() const { return at_; }

  int size(AxisSet axes) const;   // product of the sizes of these axes
  int index(AxisSet axes) const;  // my place in peers(axes)

  // Ring x K/V gather x Ulysses as one axis: (ring * kv_gather_degree + kv_gather) *
  // ulysses_degree + ulysses.
  int sequence_size() const { return size(kSequence); }
  int sequence_rank() const { return index(kSequence); }

  // The global rank at these coordinates.
  int rank_of(const Coordinates& at) const;
  // The global rank that differs from mine only in having this index along this axis.
  int neighbour(Axis axis, int index) const;
  // Global ranks that differ from mine along these axes only, in ascending order, mine included: the members
  // of a group.
  std::vector<int> peers(AxisSet axes) const;

 private:
  std::array<int, kAxes> sizes_;
  Coordinates at_{};
  int rank_;
};

}  // namespace atelier::plan
