// The measured rows, and the choice among them.
#include "plan/pipefusion_quality.h"

#include <cmath>
#include <tuple>

namespace atelier::plan {
namespace {

constexpr MeasuredQuality kMeasured[] = {
    {12, 2, 0, 29.51, 1.0},   {12, 4, 0, 28.64, 0.975}, {12, 8, 0, 23.44, 0.975}, {12, 2, 1, 32.58, 1.0},
    {12, 4, 1, 32.68, 1.0},   {12, 8, 1, 32.42, 1.0},   {12, 2, 2, 45.83, 1.0},   {12, 4, 2, 40.28, 0.975},
    {12, 8, 2, 39.68, 0.975}, {12, 2, 4, 51.56, 0.975}, {12, 4, 4, 49.64, 0.975}, {12, 8, 4, 48.17, 0.975},
    {4, 2, 0, 27.31, 1.0},    {4, 4, 0, 24.78, 0.95},   {4, 8, 0, 23.15, 0.925},  {4, 2, 1, 31.75, 1.0},
    {4, 4, 1, 29.3, 0.95},    {4, 8, 1, 28.57, 0.95},   {4, 2, 2, 43.73, 0.95},   {4, 4, 2, 41.5, 0.95},
    {4, 8, 2, 38.77, 0.95},
};
constexpr int kShort = 4, kLong = 12;  // steps that were measured
constexpr double kRightShort = 1.0, kRightLong = 0.975;

int nearest_steps(int steps) {
  return steps * steps < kShort * kLong ? kShort : kLong;
}

}  // namespace

std::span<const MeasuredQuality> measured_quality() {
  return kMeasured;
}

double right_of_one_rank(int steps) {
  return nearest_steps(steps) == kShort ? kRightShort : kRightLong;
}

const MeasuredQuality& nearest_measured(int steps, int patches, int warmup) {
  // The smaller the key, the better the row fits: milder rows last, then how far away.
  const auto key = [&](const MeasuredQuality& m) {
    return std::tuple(m.steps != nearest_steps(steps), m.warmup > warmup, m.patches < patches,
                      std::abs(m.warmup - warmup), std::abs(m.patches - patches));
  };
  const MeasuredQuality* best = kMeasured;
  for (const auto& m : kMeasured) {
    if (key(m) < key(*best)) best = &m;
  }
  return *best;
}

}  // namespace atelier::plan
