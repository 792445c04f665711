#include "cluster/sink.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "base/digest.h"
#include "base/error.h"
#include "jobs/output_folder.h"
#include "media/image.h"
#include "request/names.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;

std::string encode(const SinkConfig& config, const request::Request& request,
                   const media::Artifact& artifact) {
  const auto format = media::format_of(request.name).value_or(*media::format_of("." + config.format));
  return media::encode(artifact, format, config.quality,
                       media::describe(request::look(request, config.record)));
}

// Keeps the bytes: whoever sends the answer sends them along.
class ChannelSink : public Sink {
 public:
  explicit ChannelSink(const SinkConfig& config) : config_(config) {}
  SinkResult put(const request::Request& request, const media::Artifact& artifact) override {
    std::string bytes = encode(config_, request, artifact);
    return {{.sha256 = sha256(bytes), .bytes = bytes.size()}, std::move(bytes)};
  }

 private:
  const SinkConfig config_;
};

class FolderSink : public Sink {
 public:
  explicit FolderSink(const SinkConfig& config) : config_(config), folder_(config.folder) {}
  SinkResult put(const request::Request& request, const media::Artifact& artifact) override {
    const std::string bytes = encode(config_, request, artifact);
    folder_.write(request.name, bytes);
    return {{.sha256 = sha256(bytes), .bytes = bytes.size()}, {}};
  }

 private:
  const SinkConfig config_;
  jobs::OutputFolder folder_;
};

}  // namespace

std::unique_ptr<Sink> make_sink(const SinkConfig& config) {
  if (config.returns_bytes) return std::make_unique<ChannelSink>(config);
  return std::make_unique<FolderSink>(config);
}

void remove_unfinished(const SinkConfig& config, const std::vector<std::string>& names,
                       const std::vector<pid_t>& processes) {
  if (config.returns_bytes) return;
  std::set<fs::path> folders{config.folder};
  for (const auto& name : names) folders.insert(config.folder / fs::path(name).parent_path());
  std::error_code ignored;
  for (const auto& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(request::kTemporaryPrefix)) continue;
      for (const pid_t id : processes) {
        if (name.find(str("-", id, "-")) != std::string::npos) fs::remove(entry.path(), ignored);
      }
    }
  }
}

}  // namespace atelier::cluster
