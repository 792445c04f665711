#include "server/metrics.h"

#include <gtest/gtest.h>

namespace atelier::server {
namespace {

// Six digits would let a counter stand still from a million on.
TEST(Metrics_NumbersAreExact, HoweverLarge) {
  Metrics metrics;
  metrics.count("pictures_total", "drawn", "", 1234567);
  metrics.count("pictures_total", "drawn");
  metrics.set("bytes", "held", 110973952.0);
  metrics.set("share", "of all", 0.1);
  metrics.observe("seconds", "taken", 1234567.25);
  const std::string text = metrics.text();
  for (const char* line : {"\npictures_total 1234568\n", "\nbytes 110973952\n", "\nshare 0.1\n",
                           "\nseconds_sum 1234567.25\n", "\nseconds_count 1\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
}

}  // namespace
}  // namespace atelier::server
