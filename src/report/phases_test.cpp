// Parts of a run's time add up to it, whatever was measured.
#include "report/phases.h"

#include <gtest/gtest.h>

namespace atelier::report {
namespace {

double sum(const NamedSeconds& parts) {
  double all = 0;
  for (const auto& [name, s] : parts) {
    EXPECT_GE(s, 0) << name;
    all += s;
  }
  return all;
}
double of(const NamedSeconds& parts, const std::string& name) {
  for (const auto& [n, s] : parts) {
    if (n == name) return s;
  }
  ADD_FAILURE() << "no " << name;
  return -1;
}

TEST(Phases, StartIsSpawnRendezvousAndLoad) {
  const auto parts = start_phases(10, 1.5, 6);
  EXPECT_DOUBLE_EQ(sum(parts), 10);
  EXPECT_DOUBLE_EQ(of(parts, "spawn"), 2.5);
  EXPECT_DOUBLE_EQ(of(parts, "rendezvous"), 1.5);
  EXPECT_DOUBLE_EQ(of(parts, "load"), 6);
  // Ranks that loaded again after a restart say more than there was.
  EXPECT_DOUBLE_EQ(sum(start_phases(10, 4, 9)), 10);
  EXPECT_DOUBLE_EQ(sum(start_phases(0, 4, 9)), 0);
}

TEST(Phases, DrawingIsItsSlowestGroupTheLastFilesTheEndAndWaiting) {
  const auto parts = draw_phases(20, {{"encode", 1}, {"denoise", 12}, {"decode", 2}}, 0.5, 0.25);
  EXPECT_DOUBLE_EQ(sum(parts), 20);
  EXPECT_DOUBLE_EQ(of(parts, "denoise"), 12);
  EXPECT_DOUBLE_EQ(of(parts, "write"), 0.5);
  EXPECT_DOUBLE_EQ(of(parts, "end"), 0.25);
  EXPECT_DOUBLE_EQ(of(parts, "waiting"), 4.25);
  EXPECT_DOUBLE_EQ(sum(draw_phases(3, {{"denoise", 12}}, 9, 1)), 3);
  EXPECT_DOUBLE_EQ(of(draw_phases(3, {}, 0, 0), "waiting"), 3);
}

}  // namespace
}  // namespace atelier::report
