// What a request is shown: pictures, animations, videos, folders of frames.
#include <algorithm>
#include <fstream>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "media/input.h"
#include "media/video.h"

namespace atelier::media {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& file, const std::string& why) {
  throw Error(Kind::kUsage, str(file.string(), ": ", why));
}

bool is_named_picture(const fs::path& file) {
  const auto format = format_of(file.filename().string());
  return format == Format::kPng || format == Format::kJpeg || format == Format::kWebp;
}

// The pictures of a folder by name; hidden files and those of other kinds are left out.
std::vector<fs::path> pictures_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (is_named_picture(at->path()) && !at->path().filename().string().starts_with('.'))
      files.push_back(at->path());
  }
  if (error) fail(folder, error.message());
  if (files.empty()) fail(folder, "the folder holds no pictures (.png, .jpg, .webp)");
  std::sort(files.begin(), files.end());
  return files;
}

AnimationFacts read_folder(const fs::path& folder, const TakeFrame& take) {
  AnimationFacts facts;
  for (const auto& file : pictures_in(folder)) {
    try {
      Image picture = decode_upright(read_picture_file(file));
      facts.width = picture.width, facts.height = picture.height;
      ++facts.frames;
      if (!take(std::move(picture))) break;
    } catch (const Error& e) {
      fail(file, e.what());
    }
  }
  return facts;
}

constexpr size_t kHeadBytes = 512;

// The first bytes of a file.
std::string head_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string head(kHeadBytes, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<size_t>(in.gcount()));
  return head;
}

// Whether a file begins as one of the usual containers and streams of videos does.
bool begins_as_video(std::string_view head) {
  using namespace std::string_view_literals;
  constexpr size_t kPacket = 188;  // bytes, of MPEG transport streams; their players' ones have 4 in front
  const auto has_packets = [head](size_t from) {
    return head.size() > from + kPacket && head[from] == 'G' && head[from + kPacket] == 'G';
  };
  if (has_packets(0) || (head.size() > kPacket + 8 && head[4] == 'G' && head[kPacket + 8] == 'G'))
    return true;
  if (head.starts_with("RIFF") && head.size() >= 12 && head.substr(8, 4) == "AVI "sv) return true;
  for (const std::string_view box : {"ftyp"sv, "moov"sv, "mdat"sv, "free"sv, "skip"sv, "wide"sv, "pnot"sv}) {
    if (head.size() >= 8 && head.substr(4, 4) == box) return true;
  }
  for (const std::string_view mark :
       {"\x1a\x45\xdf\xa3"sv, "FLV"sv, "OggS"sv, "YUV4MPEG2"sv, "DKIF"sv, "\x30\x26\xb2\x75"sv, ".RMF"sv,
        "\0\0\1"sv, "\0\0\0\1"sv, "\x12\0\x0a"sv, "\x06\x0e\x2b\x34"sv, "nut/"sv}) {
    if (head.starts_with(mark)) return true;
  }
  return false;
}

// Why a file that begins as no video does is none.
std::string unlike_video(std::string_view head) {
  if (head.empty()) return "it is empty, so no video";
  return "it is no video and no picture, by its first bytes";
}

AnimationFacts read_video(const fs::path& file, std::string_view head, const TakeFrame& take) {
  std::error_code error;
  const auto bytes = fs::file_size(file, error);
  if (error || bytes > static_cast<uintmax_t>(kMaxVideoBytes))
    fail(file, error ? error.message()
                     : str("it has ", bytes, " bytes; videos of at most ", kMaxVideoBytes, " are read"));
  const bool is_known = begins_as_video(head);
  if (head.empty()) fail(file, unlike_video(head));
  const FfmpegModule* module = nullptr;
  try {
    module = &ffmpeg_module();  // which may know more
  } catch (const Error&) {
    if (is_known) throw;
    fail(file, unlike_video(head));
  }
  try {
    return module->read(file.string(), take);
  } catch (const Error&) {
    throw;  // of whoever takes the frames
  } catch (const std::runtime_error& e) {
    fail(file, is_known ? e.what() : str(unlike_video(head), ": ", e.what()));
  }
}

AnimationFacts read_file_of_frames(const fs::path& file, const TakeFrame& take) {
  std::error_code error;
  if (!fs::exists(file, error)) fail(file, "there is no such file");
  // a FIFO or a device would block or never end
  if (!fs::is_regular_file(file, error)) fail(file, "it is neither a file nor a folder of pictures");
  const auto head = head_of(file);
  const bool is_gif = head.starts_with("GIF8"), is_animation = is_webp_animation(head);
  const bool is_picture = head.starts_with("\x89PNG") || head.starts_with("\xff\xd8\xff") ||
                          (head.starts_with("RIFF") && head.size() >= 12 && head.substr(8, 4) == "WEBP");
  if (!is_gif && !is_picture && is_named_picture(file))
    fail(file, "it holds no PNG, JPEG or WebP, though its name says so");
  if (!is_gif && !is_picture) return read_video(file, head, take);
  const auto bytes = read_picture_file(file);
  try {
    if (is_gif) return read_gif(bytes, take);
    if (is_animation) return read_webp_animation(bytes, take);
    Image picture = decode_upright(bytes);
    const AnimationFacts facts{picture.width, picture.height, 1, 0};
    take(std::move(picture));
    return facts;
  } catch (const Error& e) {
    fail(file, e.what());
  }
}

}  // namespace

AnimationFacts read_clip(const fs::path& path, int64_t most, const std::function<void(Image)>& take) {
  int64_t taken = 0;
  const TakeFrame one = [&](Image picture) {
    take(std::move(picture));
    return ++taken < most;
  };
  std::error_code error;
  return fs::is_directory(path, error) ? read_folder(path, one) : read_file_of_frames(path, one);
}

std::string digest_of_clip(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return sha256_of_file(path);
  NamedFiles files;
  for (const auto& file : pictures_in(path))
    files.emplace_back(file.filename().string(), read_picture_file(file));
  return digest_of(files);
}

}  // namespace atelier::media
