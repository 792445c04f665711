// Which format holds a video, and folders of frames.
#include "media/video.h"

#include <algorithm>
#include <cstdio>

#include "base/check.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "media/animation.h"
#include "media/limits.h"
#include "media/texts.h"

namespace atelier::media {
namespace fs = std::filesystem;
namespace {

std::string frame_name(size_t i) {
  char name[32];
  std::snprintf(name, sizeof name, "%04zu.png", i);
  return name;
}

void check_frames(const Video& video, Format format) {
  ENSURE(!video.frames.empty());
  const Image& first = video.frames.front();
  for (const Image& frame : video.frames) ENSURE(frame.width == first.width && frame.height == first.height);
  if (const auto problem = size_problem(format, first.width, first.height); !problem.empty())
    throw Error(Kind::kItem, problem);
}

}  // namespace

std::string encode(const Video& video, Format format, int quality, const Metadata& metadata) {
  check_frames(video, format);
  const int q = usual_quality(quality);
  const Texts texts = texts_of(metadata, format);
  switch (format) {
    case Format::kWebp:
      return encode_webp_animation(video, q, texts);
    case Format::kGif:
      return encode_gif(video, texts);
    case Format::kMp4:
      return encode_mp4(video, quality, metadata).bytes;
    default:
      throw Error(Kind::kUsage,
                  str("a ", suffix(format), " file holds one picture: a video of ", video.frames.size(),
                      " frames is written as .webp, .gif, .mp4 or .frames"));
  }
}

Video as_video(const Artifact& artifact) {
  if (const auto* picture = std::get_if<Image>(&artifact)) return {{*picture}, 1};
  return std::get<Video>(artifact);
}

EncodedVideo encode_mp4(const Video& video, int quality, const Metadata& metadata) {
  check_frames(video, Format::kMp4);
  try {
    return ffmpeg_module().encode(video, usual_quality(quality), texts_of(metadata, Format::kMp4),
                                  kVideoEncoders);
  } catch (const std::runtime_error& e) {
    throw Error(Kind::kItem, str("cannot write an MP4: ", e.what()));
  }
}

NamedFiles encode_frames(const Video& video, const Metadata& metadata) {
  check_frames(video, Format::kPng);
  Metadata of_frame = metadata;
  of_frame.values.emplace_back("frames", std::to_string(video.frames.size()));
  auto coded = encode_each(
      video, [&](const Image& frame) { return encode(frame, Format::kPng, kDefaultQuality, of_frame); });
  NamedFiles files;
  for (size_t i = 0; i < coded.size(); ++i) files.emplace_back(frame_name(i), std::move(coded[i]));
  return files;
}

std::string digest_of(const NamedFiles& files) {
  std::string all;
  for (const auto& [name, bytes] : files) all += str(name, " ", sha256(bytes), "\n");
  return sha256(all);
}

FramesFolder look_at_frames(const fs::path& folder) {
  FramesFolder out;
  NamedFiles files;
  for (size_t i = 0; fs::exists(folder / frame_name(i)); ++i)
    files.emplace_back(frame_name(i), read_file(folder / frame_name(i)));
  if (files.empty()) return out;
  out.metadata = read_metadata(files.front().second);
  out.is_whole = true;
  for (const auto& [name, bytes] : files) {
    out.bytes += bytes.size();
    out.is_whole = out.is_whole && is_whole(bytes);
  }
  out.sha256 = digest_of(files);
  if (!out.metadata) return out;
  auto& values = out.metadata->values;
  const auto count =
      std::find_if(values.begin(), values.end(), [](const auto& v) { return v.first == "frames"; });
  if (count == values.end()) return out;
  out.is_whole = out.is_whole && to_integer(count->second) == std::ssize(files);
  values.erase(count);
  return out;
}

}  // namespace atelier::media
