// Downloads a diffusers folder from a Hugging Face hub into its cache layout. Torch-free.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json.h"
#include "hub/sources.h"

namespace atelier::hub {

struct DownloadProgress {
  std::string file;
  int64_t done = 0, total = 0;  // bytes over all files
};

struct DownloadOptions {
  std::string endpoint = "https://huggingface.co";  // HF_ENDPOINT
  std::string token;            // HF_TOKEN; sent to the endpoint's host only, never printed
  std::filesystem::path cache;  // hub_cache(...)
  std::string revision;         // empty: main
  int tries = 5;                // per request
  int64_t first_wait_ms = 500;  // doubled after every failed try
  std::function<void(const DownloadProgress&)> progress;  // may be empty
  std::function<void(const Json& index)> check;  // of model_index.json, before the rest; throws to refuse it
};

// Fetches what the model needs: model_index.json and the folders that it names, without pickles, other
// frameworks' formats, variants beside full weights, and single-file copies. Resumes half-done files, checks
// sizes and checksums, and leaves the cache as hf would: blobs, snapshots/<commit> of links, refs/<revision>.
// Throws Error(kUsage): unknown model, revision or missing permission; Error(kCapacity): not enough room on
// the disk (found before the first big file); Error(kCheckpoint): network, server or checksum;
// Error(kInterrupted).
ModelSource download(const std::string& id, const DownloadOptions& options, const std::stop_token& stop = {});

// Which of a repository's files belong to a diffusers folder with these components. For tests.
std::vector<std::string> needed_files(const std::vector<std::string>& files,
                                      const std::vector<std::string>& components);

}  // namespace atelier::hub
