#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <mutex>
#include <string>

#include "base/error.h"
#include "base/printable.h"

namespace atelier::log {
namespace {

struct State {
  std::mutex mutex;  // of the list of sinks, the context and the level
  std::shared_ptr<spdlog::sinks::stderr_color_sink_mt> console =
      std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  spdlog::logger logger{"atelier", console};
  std::string context;
  Level level = Level::kInfo;
  State() {
    console->set_pattern("%^%l%$ %v");
    console->set_level(spdlog::level::info);
    logger.set_level(spdlog::level::info);
    logger.flush_on(spdlog::level::info);
  }
};

State& state() {
  static State s;
  return s;
}

spdlog::level::level_enum native(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kSilent:
      return spdlog::level::critical;
  }
  return spdlog::level::info;
}

void write(spdlog::level::level_enum level, std::string_view message) {
  auto& s = state();
  if (!s.logger.should_log(level)) return;
  const std::scoped_lock lock(s.mutex);
  std::string line = s.context.empty() ? std::string(message) : s.context + " " + std::string(message);
  s.logger.log(level, "{}", printable(line));
}

}  // namespace

void set_console(Level level) {
  auto& s = state();
  const std::scoped_lock lock(s.mutex);
  s.level = level;
  s.console->set_level(native(level));
  if (s.logger.sinks().size() == 1) s.logger.set_level(native(level));
}

void add_file(const std::filesystem::path& path) {
  const auto refuse = [&](const std::string& why) {
    throw Error(Kind::kUsage,
                str("cannot write the log file ", path.string(), ": ", why, "; choose another log_dir"));
  };
  try {
    std::filesystem::create_directories(path.parent_path());
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    sink->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
    auto& s = state();
    const std::scoped_lock lock(s.mutex);
    s.logger.sinks().push_back(sink);
    s.logger.set_level(spdlog::level::debug);
  } catch (const std::filesystem::filesystem_error& e) {
    refuse(e.code().message());
  } catch (const std::exception& e) {
    refuse(e.what());
  }
}

void set_context(std::string_view context) {
  auto& s = state();
  const std::scoped_lock lock(s.mutex);
  s.context = context;
}
void debug(std::string_view message) {
  write(spdlog::level::debug, message);
}
void info(std::string_view message) {
  write(spdlog::level::info, message);
}
void warning(std::string_view message) {
  write(spdlog::level::warn, message);
}
void error(std::string_view message) {
  write(spdlog::level::err, message);
}
bool is_debug() {
  auto& s = state();
  const std::scoped_lock lock(s.mutex);
  return s.level == Level::kDebug;
}

}  // namespace atelier::log
