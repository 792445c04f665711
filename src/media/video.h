// Moving pictures in and out: animated WebP, GIF, folders of frames, and, through a module over FFmpeg's
// libraries that is opened at its first use, MP4 out and any video in.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "media/animation.h"
#include "media/ffmpeg/module.h"
#include "media/image.h"

namespace atelier::media {

// Throws Error(kUsage) naming the packages to install where the module or FFmpeg's libraries are not there.
const FfmpegModule& ffmpeg_module();
// An artifact as a video: a picture is one of one frame.
Video as_video(const Artifact& artifact);
// A file of a video. Throws Error(kItem) for frames that do not fit the format, Error(kUsage) for a format
// that holds one picture.
std::string encode(const Video& video, Format format, int quality, const Metadata& metadata);

// The files of a folder of frames by name, 0000.png and so on, each with the metadata.
using NamedFiles = std::vector<std::pair<std::string, std::string>>;
NamedFiles encode_frames(const Video& video, const Metadata& metadata);
// Of the files of a folder: stays the same wherever they lie.
std::string digest_of(const NamedFiles& files);
// A folder as encode_frames makes it. is_whole: as many frames as the first one's metadata says, each whole.
struct FramesFolder {
  bool is_whole = false;
  std::string sha256;
  uint64_t bytes = 0;
  std::optional<Metadata> metadata;
};
FramesFolder look_at_frames(const std::filesystem::path& folder);

inline constexpr int64_t kMaxVideoBytes = 1LL << 33;  // of an input video; more is refused before it is read

// What a request is shown: a picture, an animated WebP or GIF, a video, or a folder of pictures in the order
// of their names. Gives its first `most` frames, upright, one after another. Throws Error(kUsage) naming the
// file that is missing, no plain file, damaged, cut off, or larger than it may be.
AnimationFacts read_clip(const std::filesystem::path& path, int64_t most,
                         const std::function<void(Image)>& take);
// Of what a clip's file, or folder, holds. Throws as read_clip.
std::string digest_of_clip(const std::filesystem::path& path);

// With the codec's name, which is the module's choice. Throws Error(kItem), also where there is no module:
// whoever may ask for an MP4 is told before it is drawn.
EncodedVideo encode_mp4(const Video& video, int quality, const Metadata& metadata);
// Without the module.
bool is_mp4(std::string_view bytes);
std::optional<Texts> texts_of_mp4(std::string_view bytes);
bool is_complete_mp4(std::string_view bytes);

}  // namespace atelier::media
