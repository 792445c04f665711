// Names of output files, relative to the output folder. Nothing here can name a file outside of it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace atelier::request {

inline constexpr std::array<std::string_view, 3> kPictureEndings{".png", ".jpg", ".jpeg"};
inline constexpr std::array<std::string_view, 4> kVideoEndings{".webp", ".gif", ".mp4", ".frames"};

// "000012.png", with a sub-index "000012_03.png"; suffix with its dot.
std::string default_name(int64_t index, std::optional<int> sub, std::string_view suffix);

// A name from a prompt file: the endings that are kept (and the suffix itself) stay, in lower case; anything
// else gets the suffix appended; the sub-index goes in front of it: "a/b" -> "a/b_01.png". Throws
// Error(kItem) as check_name does.
std::string custom_name(std::string_view name, std::optional<int> sub, std::string_view suffix,
                        std::span<const std::string_view> kept = kPictureEndings);

// "a/b.png", 2 -> "a/b-2.png".
std::string numbered_name(std::string_view name, size_t number);

// Throws Error(kItem) naming the rule unless the name is relative, has no "..", no empty or overlong part, no
// control character, is UTF-8 and does not begin a part with the prefix that temporary files have.
void check_name(std::string_view name);

// A name that ends with it is a folder's: the frames of a video.
inline constexpr std::string_view kFolderSuffix = ".frames";
inline constexpr std::string_view kTemporaryPrefix = ".atelier-";

}  // namespace atelier::request
