// The CPU twin of place into bytes, against formulas in double and a table of all e4m3 numbers.
#include <limits>
#include <stdexcept>

#include "kernels/e4m3_numbers.h"
#include "kernels/place_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

void* in_memory(Buffer& b, int64_t at) {
  return b.data(at);
}

const uint8_t* bytes_of(const Buffer& b) {
  return static_cast<const uint8_t*>(b.data());
}

// The same placement with numbers of double.
struct Reference {
  PlaceData data;
  explicit Reference(PlaceCase c, const PlaceData& like) : data(c, ElementType::kF64) {
    const auto copy = [](const Buffer& from, Buffer& to) {
      for (int64_t i = 0; i < from.count(); ++i) to.set(i, from[i]);
    };
    copy(like.fused, data.fused);
    copy(like.weight_q, data.weight_q), copy(like.weight_k, data.weight_k);
    copy(like.bias_q, data.bias_q), copy(like.bias_k, data.bias_k);
    copy(like.cos, data.cos), copy(like.sin, data.sin);
    c.is_e4m3 = false;
    std::vector<Target> targets;
    place({}, ElementType::kF64, placement(c, data, targets, in_memory));
  }
};

// Nearest, but for numbers that float arithmetic puts on the other side of the middle of two.
void expect_nearest(const Buffer& got, const Buffer& want) {
  for (int64_t i = 0; i < want.count(); ++i) {
    const double value = value_of(bytes_of(got)[i]), best = value_of(nearest(want[i]));
    ASSERT_LE(std::abs(value - want[i]), std::abs(best - want[i]) + 4e-6 * (8 + std::abs(want[i])))
        << "number " << i << " is " << want[i];
  }
}

TEST(PlaceE4m3, WritesTheNearestNumbers) {
  for (const ElementType t : kAllTypes) {
    for (const PlaceCase& c : byte_cases()) {
      SCOPED_TRACE(std::string(name_of(t)) + " " + c.text());
      PlaceData data(c, t);
      const Reference exact(c, data);
      std::vector<Target> targets;
      place({}, t, placement(c, data, targets, in_memory));
      for (size_t i = 0; i < c.split.size(); ++i) {
        if (c.asks) expect_nearest(data.q[i], exact.data.q[i]);
        expect_nearest(data.kv[i], exact.data.kv[i]);
      }
      for (size_t i = 0; i < data.kv_copies.size(); ++i)
        expect_nearest(data.kv_copies[i], exact.data.kv_copies[i]);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(PlaceE4m3, SaturatesAndKeepsWhatIsNoNumber) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<double> given = {0,
                                     -0.0,
                                     447,
                                     449,
                                     1e9,
                                     -1e9,
                                     kInfinity,
                                     -kInfinity,
                                     1e-9,
                                     -1e-9,
                                     240,
                                     17,
                                     std::numeric_limits<double>::quiet_NaN(),
                                     0.001,
                                     1.0625,
                                     1.1875};
  Buffer v(ElementType::kF32, std::ssize(given)), kv(ElementType::kF32, 2 * v.count());
  for (int64_t i = 0; i < v.count(); ++i) v.set(i, given[i]);
  const Target target{nullptr, kv.data(), 0, 1};
  place({}, ElementType::kF32,
        {.v = {v.data(), 16, 16, 16},
         .n = 1,
         .batch = 1,
         .heads = 1,
         .head_dim = 16,
         .targets = std::span(&target, 1),
         .is_e4m3 = true});
  for (int64_t i = 0; i < v.count(); ++i)
    EXPECT_EQ(int{bytes_of(kv)[16 + i]}, int{nearest(given[i])}) << given[i];
}

TEST(PlaceE4m3, RefusesHeadsThatAreNoMultipleOf16) {
  Buffer x(ElementType::kF32, 256);
  const Target target{nullptr, x.data(128), 0, 1};
  const auto call = [&](int64_t dim) {
    place({}, ElementType::kF32,
          {.k = {x.data(), dim, 0, dim},
           .n = 1,
           .batch = 1,
           .heads = 1,
           .head_dim = dim,
           .targets = std::span(&target, 1),
           .is_e4m3 = true});
  };
  EXPECT_NO_THROW(call(32));
  EXPECT_THROW(call(24), std::logic_error);
}

}  // namespace
}  // namespace atelier::kernels
