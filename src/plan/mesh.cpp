// Mixed-radix arithmetic behind Mesh.
#include "plan/mesh.h"

#include "base/check.h"

namespace atelier::plan {

std::string_view axis_name(Axis axis) {
  constexpr std::array<std::string_view, kAxes> kNames{"data",      "cfg",     "pipefusion", "ring",
                                                       "kv_gather", "ulysses", "tensor"};
  return kNames[static_cast<int>(axis)];
}

Mesh::Mesh(std::array<int, kAxes> sizes, int rank) : sizes_(sizes), rank_(rank) {
  for (int size : sizes) ENSURE(size >= 1);
  ENSURE(rank >= 0 && rank < world());
  for (int axis = kAxes - 1; axis >= 0; --axis) {
    at_[axis] = rank % sizes_[axis];
    rank /= sizes_[axis];
  }
}

int Mesh::world() const {
  int product = 1;
  for (int size : sizes_) product *= size;
  return product;
}

int Mesh::size(AxisSet axes) const {
  int product = 1;
  for (int axis = 0; axis < kAxes; ++axis) {
    if (axes.contains(static_cast<Axis>(axis))) product *= sizes_[axis];
  }
  return product;
}

int Mesh::index(AxisSet axes) const {
  int place = 0;
  for (int axis = 0; axis < kAxes; ++axis) {
    if (axes.contains(static_cast<Axis>(axis))) place = place * sizes_[axis] + at_[axis];
  }
  return place;
}

int Mesh::rank_of(const Coordinates& at) const {
  int rank = 0;
  for (int axis = 0; axis < kAxes; ++axis) {
    ENSURE(at[axis] >= 0 && at[axis] < sizes_[axis]);
    rank = rank * sizes_[axis] + at[axis];
  }
  return rank;
}

int Mesh::neighbour(Axis axis, int index) const {
  Coordinates at = at_;
  at[static_cast<int>(axis)] = index;
  return rank_of(at);
}

std::vector<int> Mesh::peers(AxisSet axes) const {
  std::vector<int> ranks(size(axes));
  for (int place = 0; place < static_cast<int>(ranks.size()); ++place) {
    Coordinates at = at_;
    int rest = place;
    for (int axis = kAxes - 1; axis >= 0; --axis) {
      if (!axes.contains(static_cast<Axis>(axis))) continue;
      at[axis] = rest % sizes_[axis];
      rest /= sizes_[axis];
    }
    ranks[place] = rank_of(at);
  }
  return ranks;
}

}  // namespace atelier::plan
