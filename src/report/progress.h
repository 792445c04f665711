// The progress of a run on the terminal: one bar redrawn in place, or one plain line per picture where there
// is none.
#pragma once
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace atelier::report {

enum class Style { kBar, kLines, kSilent };

// kSilent if is_quiet, kBar if the stream is a terminal that can redraw (TERM is not "dumb"), else kLines.
enum class Noise { kQuiet, kNormal };
Style style_for(std::FILE* stream, Noise noise, const char* term);

struct StepProgress {
  int group = 0;     // which data-parallel group reports
  int done = 0;      // denoising steps of its batch that are finished, of
  int total = 1;     // this many
  int pictures = 1;  // in the batch
  double ms = 0;     // that this step took
};

class Progress {
 public:
  using SecondsNow = std::function<double()>;  // seconds, monotonic
  using Print = std::function<void(const std::string&)>;

  // pictures: to draw in this run. The stream is flushed after every write.
  Progress(int64_t pictures, Style style, std::FILE* stream);
  // For tests: the text goes to the sink.
  Progress(int64_t pictures, Style style, Print sink, SecondsNow clock, int columns);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // What happens outside of steps: "loading weights", "decoding". Shown by the bar only.
  void phase(const std::string& what);
  void step(const StepProgress& step);
  // A picture is written under this name after so many seconds, or failed.
  void picture(const std::string& name, double seconds);
  void failure(const std::string& name, const std::string& reason);
  // Takes the bar away, so that a line of log can be written; the next event draws it again.
  void clear();
  // Takes the bar away for good. Also done by the destructor.
  void finish();

  static constexpr double kMinSecondsBetweenDraws = 0.1;

 private:
  void draw(bool is_forced);
  std::string bar_text() const;
  double seconds_left() const;
  void settle();
  void line(const std::string& text);

  const int64_t pictures_;
  const Style style_;
  const Print sink_;
  const SecondsNow clock_;
  const int columns_;
  mutable std::mutex mutex_;
  const double start_;
  double first_step_ = -1;  // when drawing began: loading does not count for the time left
  double last_draw_ = -1;
  int64_t done_ = 0, failed_ = 0;
  double steps_ms_ = 0;
  int64_t steps_ = 0;
  StepProgress last_;
  std::map<int, StepProgress> running_;  // by group
  std::string phase_;
  bool is_drawn_ = false, is_finished_ = false;
};

}  // namespace atelier::report
