// One logger for the program. Rooms below pipeline/ do not log.
#pragma once
#include <filesystem>
#include <string_view>

namespace atelier::log {

enum class Level { kDebug, kInfo, kWarning, kError, kSilent };

// Console threshold; errors always reach stderr.
void set_console(Level level);
// Also writes every line (debug and above) to this file. Throws Error(kUsage) if it cannot be opened.
void add_file(const std::filesystem::path& path);
// Prefix of every line of this process, such as "rank=3".
void set_context(std::string_view context);

void debug(std::string_view message);
void info(std::string_view message);
void warning(std::string_view message);
void error(std::string_view message);
bool is_debug();

}  // namespace atelier::log
