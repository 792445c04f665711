// Drawing the bar and estimating the time left.
#include "report/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string_view>

#include "base/error.h"
#include "base/printable.h"
#include "report/clock.h"

namespace atelier::report {
namespace {

constexpr int kBarWidth = 24, kLeastBarWidth = 8, kDefaultColumns = 80;
constexpr std::string_view kErase = "\r\x1b[K";

double monotonic() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int columns_of(std::FILE* stream) {
  winsize size{};
  const bool is_known = ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : kDefaultColumns;
}

Progress::Print write_to(std::FILE* stream) {
  return [stream](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stream);
    std::fflush(stream);
  };
}

std::string fixed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 100 ? "%.1f" : "%.0f", value);
  return text;
}

}  // namespace

Style style_for(std::FILE* stream, Noise noise, const char* term) {
  if (noise == Noise::kQuiet) return Style::kSilent;
  const bool can_redraw =
      ::isatty(::fileno(stream)) == 1 && term != nullptr && std::string_view(term) != "dumb";
  return can_redraw ? Style::kBar : Style::kLines;
}

Progress::Progress(int64_t pictures, Style style, std::FILE* stream)
    : Progress(pictures, style, write_to(stream), monotonic, columns_of(stream)) {}

Progress::Progress(int64_t pictures, Style style, Print sink, SecondsNow clock, int columns)
    : pictures_(pictures),
      style_(style),
      sink_(std::move(sink)),
      clock_(std::move(clock)),
      columns_(columns),
      start_(clock_()) {}

Progress::~Progress() {
  finish();
}

void Progress::phase(const std::string& what) {
  const std::scoped_lock lock(mutex_);
  const bool is_new = phase_ != what;
  phase_ = what;
  draw(is_new);
}

void Progress::step(const StepProgress& step) {
  const std::scoped_lock lock(mutex_);
  if (first_step_ < 0) first_step_ = clock_() - step.ms / 1000;
  phase_.clear();
  steps_ms_ += step.ms;
  ++steps_;
  last_ = step;
  last_.total = std::max(1, step.total);
  running_[step.group] = last_;
  draw(false);
}

void Progress::picture(const std::string& name, double seconds) {
  const std::scoped_lock lock(mutex_);
  ++done_;
  settle();
  line(str("[", done_ + failed_, "/", pictures_, "] ", printable(name), " ", time_text(seconds)));
}

void Progress::failure(const std::string& name, const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  ++failed_;
  settle();
  line(str("[", done_ + failed_, "/", pictures_, "] ", printable(name), " failed: ", printable(reason)));
}

void Progress::settle() {
  // a picture that is counted must not count as running too; it belongs to a batch whose steps are done
  for (auto& [group, step] : running_) {
    if (step.done < step.total || step.pictures == 0) continue;
    --step.pictures;
    return;
  }
}

void Progress::line(const std::string& text) {
  if (style_ == Style::kLines) sink_(text + "\n");
  // the bar counts pictures itself; a line for each would push everything else off the screen
  if (style_ == Style::kBar) draw(done_ + failed_ >= pictures_);
}

void Progress::clear() {
  const std::scoped_lock lock(mutex_);
  if (is_drawn_) sink_(std::string(kErase));
  is_drawn_ = false;
}

void Progress::finish() {
  clear();
  const std::scoped_lock lock(mutex_);
  is_finished_ = true;
}

double Progress::seconds_left() const {
  if (first_step_ < 0) return -1;
  double drawn = static_cast<double>(done_ + failed_);
  for (const auto& [group, step] : running_)
    drawn += step.pictures * static_cast<double>(step.done) / step.total;
  drawn = std::min(drawn, static_cast<double>(pictures_));
  if (drawn <= 0) return -1;
  return (clock_() - first_step_) / drawn * (static_cast<double>(pictures_) - drawn);
}

std::string Progress::bar_text() const {
  const double share =
      pictures_ > 0 ? static_cast<double>(done_ + failed_) / static_cast<double>(pictures_) : 1.0;
  const bool is_one = pictures_ == 1 && steps_ > 0 && done_ + failed_ == 0;
  const double filled = is_one ? static_cast<double>(last_.done) / last_.total : share;
  std::string text = str("] ", done_ + failed_, "/", pictures_, pictures_ == 1 ? " picture" : " pictures");
  if (failed_ > 0) text += str(" (", failed_, " failed)");
  if (!phase_.empty()) {
    text += ", " + phase_;
  } else if (steps_ > 0) {
    text += str(", step ", last_.done, "/", last_.total, ", ", fixed(steps_ms_ / static_cast<double>(steps_)),
                " ms/step");
  }
  text += ", " + time_text(clock_() - start_);
  if (const double left = seconds_left(); left >= 0) text += ", " + time_text(left) + " left";
  // the bar gives way to the words, down to a stub
  const int room = columns_ - 2 - static_cast<int>(text.size());
  const int width = std::clamp(room, kLeastBarWidth, kBarWidth);
  const int full = static_cast<int>(std::min(1.0, filled) * width);
  return str("[", std::string(static_cast<size_t>(full), '#'),
             std::string(static_cast<size_t>(width - full), '.'), text);
}

void Progress::draw(bool is_forced) {
  if (style_ != Style::kBar || is_finished_) return;
  const double now = clock_();
  if (!is_forced && is_drawn_ && last_draw_ >= 0 && now - last_draw_ < kMinSecondsBetweenDraws) return;
  // a line that wraps could not be erased
  sink_(std::string(kErase) + bar_text().substr(0, static_cast<size_t>(std::max(10, columns_ - 1))));
  is_drawn_ = true;
  last_draw_ = now;
}

}  // namespace atelier::report
