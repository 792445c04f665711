// Progress lines and bars with a clock of their own, the run report, log names.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "report/clock.h"
#include "report/log_names.h"
#include "report/progress.h"
#include "report/run_report.h"

namespace atelier::report {
namespace {

struct Screen {
  double now = 0;
  std::string text;
  int writes = 0;
  Progress make(int64_t pictures, Style style, int columns = 120) {
    return Progress(
        pictures, style, [this](const std::string& t) { text += t, ++writes; }, [this] { return now; },
        columns);
  }
  // What a terminal shows in its last line.
  std::string shown() const {
    const size_t at = text.rfind("\r\x1b[K");
    return at == std::string::npos ? text : text.substr(at + 4);
  }
};

TEST(Progress, PlainLinesAreOnePerPicture) {
  Screen s;
  Progress p = s.make(3, Style::kLines);
  p.phase("loading");
  for (int i = 1; i <= 4; ++i) p.step({.done = i, .total = 4, .ms = 100});
  p.picture("000000.png", 0.5);
  p.failure("000001.png", "NaN");
  p.picture("000002.png", 75);
  EXPECT_EQ(s.text, "[1/3] 000000.png 0.50 s\n[2/3] 000001.png failed: NaN\n[3/3] 000002.png 1:15\n");
}

TEST(Progress, QuietWritesNothing) {
  Screen s;
  {
    Progress p = s.make(1, Style::kSilent);
    p.phase("loading");
    p.step({.done = 1, .total = 2});
    p.picture("a", 1);
    p.failure("b", "c");
    p.clear();
  }
  EXPECT_EQ(s.text, "");
}

TEST(Progress, BarShowsStepsPicturesAndTimeLeft) {
  Screen s;
  Progress p = s.make(4, Style::kBar);
  s.now = 5;  // loading
  p.phase("loading weights");
  EXPECT_NE(s.shown().find("0/4 pictures, loading weights, 5.00 s"), std::string::npos) << s.shown();
  for (int picture = 0; picture < 2; ++picture) {
    for (int i = 1; i <= 4; ++i) {
      s.now += 0.5;
      p.step({.done = i, .total = 4, .ms = 500});
    }
    p.picture("x", 2);
  }
  s.now += 1;
  p.step({.done = 2, .total = 4, .ms = 500});
  // 2.5 pictures took 5 s, 1.5 remain
  EXPECT_EQ(s.shown(), "[############............] 2/4 pictures, step 2/4, 500 ms/step, 10.0 s, 3.00 s left");
}

TEST(Progress, TimeLeftCountsGroupsAndBatches) {
  Screen s;
  Progress p = s.make(16, Style::kBar);
  s.now = 1;
  p.step({.group = 0, .done = 2, .total = 4, .pictures = 4, .ms = 1000});
  s.now = 2;
  p.step({.group = 1, .done = 2, .total = 4, .pictures = 4, .ms = 1000});
  // 4 of 16 pictures' worth in 2 s
  EXPECT_NE(s.shown().find("6.00 s left"), std::string::npos) << s.shown();
}

TEST(Progress, BarIsDrawnAtMostTenTimesASecond) {
  Screen s;
  Progress p = s.make(1, Style::kBar);
  for (int i = 1; i <= 1000; ++i) {
    s.now += 0.001;
    p.step({.done = i, .total = 1000, .ms = 1});
  }
  EXPECT_LE(s.writes, 11);
  EXPECT_GE(s.writes, 9);
}

TEST(Progress, BarFitsTheTerminalAndGoesAway) {
  Screen s;
  {
    Progress p = s.make(1, Style::kBar, 30);
    p.step({.done = 1, .total = 2, .ms = 1});
    EXPECT_LE(s.shown().size(), 29U);
    p.clear();
    EXPECT_EQ(s.shown(), "");
    p.clear();
    EXPECT_EQ(s.writes, 2);
    p.step({.done = 2, .total = 2, .ms = 1});
    EXPECT_NE(s.shown(), "");
    p.picture("a", 1);
  }
  EXPECT_EQ(s.shown(), "");
}

TEST(Progress, TimeLeftIsReadableInEightyColumns) {
  Screen s;
  Progress p = s.make(2, Style::kBar, 80);
  p.step({.done = 3, .total = 20, .ms = 123.4});
  s.now += 1.2;
  p.step({.done = 10, .total = 20, .ms = 123.4});
  EXPECT_TRUE(s.shown().ends_with(" left")) << s.shown();
  EXPECT_LE(s.shown().size(), 79U);
}

TEST(Progress, StyleFollowsTheStream) {
  std::FILE* file = std::tmpfile();
  EXPECT_EQ(style_for(file, Noise::kNormal, "xterm"), Style::kLines);
  EXPECT_EQ(style_for(file, Noise::kQuiet, "xterm"), Style::kSilent);
  std::fclose(file);
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  std::FILE* tty = terminal >= 0 ? ::fdopen(terminal, "r+") : nullptr;
  if (tty == nullptr || ::isatty(terminal) != 1) GTEST_SKIP() << "no pseudo-terminal here";
  EXPECT_EQ(style_for(tty, Noise::kNormal, "xterm"), Style::kBar);
  EXPECT_EQ(style_for(tty, Noise::kNormal, "dumb"), Style::kLines);
  EXPECT_EQ(style_for(tty, Noise::kNormal, nullptr), Style::kLines);
  std::fclose(tty);
}

TEST(Series, MedianAndExtremesAreExactForFewAndCloseForMany) {
  Series s;
  EXPECT_TRUE(s.json().is_null());
  for (const double v : {5.0, 1.0, 3.0, 2.0}) s.add(v);
  EXPECT_EQ(s.median(), 2.5);
  EXPECT_EQ(s.json()["first"], 5.0);
  EXPECT_EQ(s.json()["min"], 1.0);
  EXPECT_EQ(s.json()["kind"], "measured");
  Series many;
  for (int i = 0; i <= 100000; ++i) many.add(i);
  EXPECT_NEAR(many.median(), 50000, 200);
  EXPECT_EQ(many.json()["max"], 100000.0);
  EXPECT_EQ(many.json()["count"], 100001);
}

TEST(RunReport, HoldsWhatTheRunDid) {
  RunReport r;
  r.add_phase("load", 1.5);
  r.add_phase("denoise", 2);
  r.add_phase("denoise", 3);
  r.add_batch(0, {{"denoise", 0.2}}, {100, 102});
  r.add_batch(1, {{"denoise", 0.1}, {"decode", 1}}, {101});
  r.add_batch(0, {{"denoise", 0.3}}, {});
  r.add_step_cache(0, 0);
  EXPECT_TRUE(r.json().at("step_cache").is_null());
  EXPECT_EQ(r.line().find("reused"), std::string::npos);
  r.add_step_cache(10, 4);
  r.add_step_cache(12, 2);
  EXPECT_EQ(r.json().at("step_cache"), (Json{{"computed", 22}, {"reused", 6}}));
  EXPECT_NE(r.line().find(", 6 of 28 evaluations reused"), std::string::npos);
  r.add_peak(1, {.host_bytes = 1 << 20, .device_bytes = 5});
  r.add_peak(1, {.host_bytes = 7, .device_bytes = 3LL << 30});
  r.add_peak(0, {.host_bytes = 9});
  r.add_kernel("sdpa");
  r.add_kernel("sdpa");
  r.add_note("fp16 is not there: float32");
  r.set_settings({{"model", "mini"}});
  r.set_version("torch", "2.11.0");
  r.add_picture("000000.png", 1.25);
  r.add_picture("000001.png", 1.25);
  r.add_failure("000002.png", "NaN");
  r.set_skipped(3);
  const Json j = r.json();
  EXPECT_EQ(j["phases"][0]["name"], "load");
  EXPECT_EQ(j["phases"][1]["seconds"], 5.0);
  EXPECT_EQ(j["ms_per_step"]["median"], 101.0);
  EXPECT_EQ(j["ms_per_step"]["count"], 3);
  EXPECT_EQ(j["groups"][0], Json({{"group", 0}, {"batches", 2}, {"seconds", {{"denoise", 0.5}}}}));
  EXPECT_EQ(j["groups"][1]["seconds"]["decode"], 1.0);
  EXPECT_EQ(j["peak_memory"][1]["rank"], 1);
  EXPECT_EQ(j["peak_memory"][1]["host_bytes"], 1 << 20);
  EXPECT_EQ(j["peak_memory"][1]["device_bytes"], 3LL << 30);
  EXPECT_EQ(j["kernels"], Json::array({"sdpa"}));
  EXPECT_EQ(j["pictures"]["drawn"], 2);
  EXPECT_EQ(j["pictures"]["failures"][0]["reason"], "NaN");
  EXPECT_EQ(j["settings"]["model"], "mini");
  EXPECT_EQ(j["versions"]["torch"], "2.11.0");
  const std::string line = r.line();
  EXPECT_TRUE(line.starts_with("2 pictures in ")) << line;
  EXPECT_NE(line.find("101 ms/step, 6 of 28 evaluations reused, peak 1.0 MiB host, 3.0 GiB device per rank; "
                      "3 were there already; 1 failed"),
            std::string::npos)
      << line;
}

TEST(RunReport, IsWrittenAsJson) {
  const auto folder = std::filesystem::temp_directory_path() / str("atelier_report_", ::getpid());
  RunReport r;
  r.add_failure("bad \xFF name", "x");
  r.write(folder);
  const Json j = read_json(folder / kReportName);
  EXPECT_EQ(j["pictures"]["failed"], 1);
  EXPECT_GT(peak_host_bytes(), 1 << 20);
  std::filesystem::remove_all(folder);
  EXPECT_THROW(r.write("/proc/atelier"), Error);
}

TEST(RunReport, ListsAreBoundedButCountsExact) {
  RunReport r;
  for (size_t i = 0; i < RunReport::kListed + 5; ++i) r.add_picture("x", 1);
  const Json j = r.json();
  EXPECT_EQ(j["pictures"]["drawn"], RunReport::kListed + 5);
  EXPECT_EQ(j["pictures"]["list"].size(), RunReport::kListed);
}

TEST(Formats, TimesAndSizesReadWell) {
  EXPECT_EQ(time_text(0.424), "0.42 s");
  EXPECT_EQ(time_text(9.999), "10.0 s");
  EXPECT_EQ(time_text(59.99), "1:00");
  EXPECT_EQ(time_text(185), "3:05");
  EXPECT_EQ(time_text(3723), "1:02:03");
  EXPECT_EQ(bytes_text(512), "512 B");
  EXPECT_EQ(bytes_text(3482), "3.4 KiB");
  EXPECT_EQ(bytes_text(1048575), "1.0 MiB");
  EXPECT_EQ(utc_text(std::chrono::system_clock::from_time_t(0)), "1970-01-01T00:00:00Z");
}

TEST(LogNames, FollowTheKnownPattern) {
  EXPECT_EQ(log_file_name({}), "process_0.log");
  EXPECT_EQ(log_file_name({.node = 1, .nodes = 2}), "node1_process0.log");
  EXPECT_EQ(log_file_name({.process = 3, .processes = 4}), "node0_process3.log");
  EXPECT_EQ(log_folder("", "out", "20250131_2359"), "out/logs/20250131_2359");
  EXPECT_EQ(log_folder("", "", "s"), "./logs/s");
  EXPECT_EQ(log_folder("mine", "out", "s"), "mine");
  EXPECT_EQ(log_stamp(std::chrono::system_clock::now()).size(), 13U);
}

}  // namespace
}  // namespace atelier::report
