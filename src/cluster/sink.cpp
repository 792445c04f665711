#include "cluster/sink.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "base/digest.h"
#include "base/error.h"
#include "jobs/output_folder.h"
#include "media/video.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;

// What becomes of one artifact.
struct Encoded {
  std::string bytes;         // of a file, or
  media::NamedFiles frames;  // of a folder
  jobs::Stored record;
};

media::Format format_of(const SinkConfig& config, const request::Request& request) {
  return media::format_of(request.name).value_or(*media::format_of("." + config.format));
}

Encoded encode(const SinkConfig& config, const request::Request& request, const media::Artifact& artifact) {
  const auto metadata = media::describe(request::look(request, config.record));
  const auto format = format_of(config, request);
  // no format has a quality of 0
  const int quality = std::max(1, request.output_compression.value_or(config.quality));
  Encoded out;
  if (format == media::Format::kFrames) {
    out.frames = media::encode_frames(media::as_video(artifact), metadata);
    out.record.sha256 = media::digest_of(out.frames);
    for (const auto& [name, bytes] : out.frames) out.record.bytes += bytes.size();
    return out;
  }
  if (format == media::Format::kMp4) {
    auto made = media::encode_mp4(media::as_video(artifact), quality, metadata);
    out.bytes = std::move(made.bytes), out.record.codec = std::move(made.codec);
  } else {
    out.bytes = media::encode(artifact, format, quality, metadata);
  }
  out.record.sha256 = sha256(out.bytes), out.record.bytes = out.bytes.size();
  return out;
}

// Keeps the bytes: whoever sends the answer sends them along.
class ChannelSink : public Sink {
 public:
  ChannelSink(const SinkConfig& config, uint64_t most) : config_(config), most_(most) {}
  SinkResult put(const request::Request& request, const media::Artifact& artifact) override {
    Encoded made = encode(config_, request, artifact);
    if (!made.frames.empty())
      throw Error(Kind::kItem,
                  str(request.name, ": a folder of frames cannot be sent; ask for one file, such as .webp"));
    if (made.bytes.size() > most_) {
      throw Error(Kind::kItem, str(request.name, " has ", made.bytes.size() >> 20, " MiB, and no more than ",
                                   most_ >> 20, " can be sent; take mp4, a lower quality or fewer frames"));
    }
    return {std::move(made.record), std::move(made.bytes)};
  }

 private:
  const SinkConfig config_;
  const uint64_t most_;
};

class FolderSink : public Sink {
 public:
  explicit FolderSink(const SinkConfig& config) : config_(config), folder_(config.folder) {}
  SinkResult put(const request::Request& request, const media::Artifact& artifact) override {
    Encoded made = encode(config_, request, artifact);
    if (made.frames.empty()) folder_.write(request.name, made.bytes);
    if (!made.frames.empty()) folder_.write_folder(request.name, made.frames);
    return {std::move(made.record), {}};
  }

 private:
  const SinkConfig config_;
  jobs::OutputFolder folder_;
};

}  // namespace

std::unique_ptr<Sink> make_sink(const SinkConfig& config, uint64_t most) {
  if (config.returns_bytes) return std::make_unique<ChannelSink>(config, most);
  return std::make_unique<FolderSink>(config);
}

void remove_unfinished(const SinkConfig& config, const std::vector<std::string>& names,
                       const std::vector<pid_t>& processes) {
  if (config.returns_bytes) return;
  std::set<fs::path> folders{config.folder};
  for (const auto& name : names) folders.insert(config.folder / fs::path(name).parent_path());
  const auto is_theirs = [&](const fs::path& file) {
    const std::string name = file.filename().string();
    return std::any_of(processes.begin(), processes.end(),
                       [&](pid_t id) { return jobs::is_temporary_of(name, id); });
  };
  for (const auto& folder : folders) {
    std::error_code error, ignored;
    for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
         at.increment(error)) {
      if (is_theirs(at->path())) fs::remove_all(at->path(), ignored);
    }
  }
}

}  // namespace atelier::cluster
