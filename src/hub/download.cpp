#include "hub/download.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/parse_json.h"
#include "base/quote.h"
#include "base/secrets.h"
#include "hub/blob.h"
#include "hub/http.h"

namespace atelier::hub {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMostWaitMs = 60'000;

// Where the hub keeps one file's bytes.
struct Remote {
  std::string file;  // path within the repository
  std::string etag;  // name of the blob
  int64_t bytes = 0;
};

int64_t number(const std::string& text) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

// Weak or quoted tags are the hub's file names in disguise.
std::string plain_etag(std::string tag) {
  if (tag.starts_with("W/")) tag.erase(0, 2);
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, tag.size() - 2);
  const auto ok = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; };
  return tag.size() <= 128 && std::all_of(tag.begin(), tag.end(), ok) ? tag : std::string();
}

// A path of the repository that stays inside of the snapshot folder.
bool is_safe_path(std::string_view path) {
  if (path.empty() || path.size() > 1000 || path.front() == '/') return false;
  if (std::any_of(path.begin(), path.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '\\'; })) {
    return false;
  }
  for (const auto& part : fs::path(path)) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

class Hub {
 public:
  Hub(std::string id, const DownloadOptions& options, const std::stop_token& stop)
      : id_(std::move(id)), options_(options), stop_(stop), client_(stop) {
    while (options_.endpoint.ends_with('/')) options_.endpoint.pop_back();
    if (options_.revision.empty()) options_.revision = "main";
  }

  ModelSource fetch_all();

 private:
  HttpResponse ask(HttpRequest request, std::string_view what);
  void wait(int try_number, const HttpResponse& response);
  [[noreturn]] void refuse(const HttpResponse& response, std::string_view what) const;
  void list_files();
  Remote find(const std::string& file);
  void fetch(const Remote& remote);
  bool fetch_blob(const Remote& remote, Blob& blob);
  void link(const Remote& remote) const;
  void check_room(const std::vector<Remote>& remotes) const;
  std::string place() const { return hide_secrets(options_.endpoint); }  // for messages
  std::string file_url(const std::string& file) const {
    return options_.endpoint + "/" + id_ + "/resolve/" + commit_ + "/" + url_path(file);
  }
  fs::path folder() const {
    return options_.cache /
           ("models--" + fs::path(id_).parent_path().string() + "--" + fs::path(id_).filename().string());
  }
  fs::path snapshot() const { return folder() / "snapshots" / commit_; }
  fs::path blob_path(const Remote& r) const { return folder() / "blobs" / r.etag; }
  void report(const std::string& file) const {
    if (options_.progress) options_.progress({file, done_, total_});
  }

  std::string id_;
  DownloadOptions options_;
  std::stop_token stop_;
  HttpClient client_;
  std::string commit_;
  std::vector<std::string> files_;
  int64_t done_ = 0, total_ = 0;
};

// Waits before the next try: doubled every time, or as long as the server asks.
void Hub::wait(int try_number, const HttpResponse& response) {
  int64_t ms = options_.first_wait_ms << std::min(try_number, 10);
  if (const int64_t seconds = number(response.header("retry-after")); seconds >= 0) ms = seconds * 1000;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(std::min(ms, kMostWaitMs));
  while (std::chrono::steady_clock::now() < until) {
    if (stop_.stop_requested())
      throw Error(Kind::kInterrupted, "the download was stopped; run again to go on with it");
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min<int64_t>(ms, 50)));
  }
}

// Whether the same question may get another answer, now or when the command is run again.
bool may_help_again(const HttpResponse& response) {
  if (!response.failure.empty() || response.is_transient) return response.is_transient;
  const int status = response.status;
  return status == 429 || status == 408 || status >= 500 || status == 200 || status == 206;  // or was cut off
}

void Hub::refuse(const HttpResponse& response, std::string_view what) const {
  const std::string page = place() + "/" + id_;
  const std::string about = str("cannot download ", what, " of ", id_, " from ", place(), ": ");
  switch (response.status) {
    case 401:
      throw Error(Kind::kUsage,
                  about + (options_.token.empty()
                               ? "the model does not exist, or it is gated: accept its licence at " + page +
                                     " and set HF_TOKEN (401)"
                               : "the token in HF_TOKEN is not valid (401)"));
    case 403:
      throw Error(Kind::kUsage, str(about, "access is denied: accept the licence at ", page,
                                    options_.token.empty() ? " and set HF_TOKEN (403)"
                                                           : " with the account of your HF_TOKEN (403)"));
    case 404:
      throw Error(Kind::kUsage, str(about, "there is none at revision ", in_quotes(options_.revision),
                                    "; check the spelling (404)"));
    case 429:
      throw Error(Kind::kPeer, about + "the server asks to slow down; try again later (429)");
    default:
      throw Error(
          may_help_again(response) ? Kind::kPeer : Kind::kCheckpoint,
          str(about,
              response.failure.empty() ? str("the server answers ", response.status) : response.failure,
              "; run again to go on from here"));
  }
}

// Tries again where that may help; returns answers with status 2xx or, for kHead, 3xx only.
HttpResponse Hub::ask(HttpRequest request, std::string_view what) {
  request.token = options_.token;
  for (int i = 0;; ++i) {
    auto response = client_.send(request);
    if (response.failure.empty() && response.status >= 200 && response.status < 400) return response;
    if (!may_help_again(response) || i + 1 >= options_.tries) refuse(response, what);
    wait(i, response);
  }
}

void Hub::list_files() {
  HttpRequest request;
  request.url = options_.endpoint + "/api/models/" + id_ + "/revision/" + url_part(options_.revision);
  const auto response = ask(request, "the list of files");
  const auto bad = [&](std::string_view what) -> Error {
    return Error(Kind::kCheckpoint, str("the list of files of ", id_, " from ", place(), " ", what,
                                        "; is HF_ENDPOINT a Hugging Face hub?"));
  };
  const Json json = parse_json(response.body);
  if (!json.is_object() || !json.contains("siblings") || !json["siblings"].is_array())
    throw bad("cannot be read");
  commit_ = json.contains("sha") && json["sha"].is_string() ? json["sha"].get<std::string>() : "";
  const bool is_hex = commit_.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (commit_.size() < 7 || commit_.size() > 64 || !is_hex) throw bad("names no commit");
  for (const auto& item : json["siblings"]) {
    const auto name = item.is_object() ? item.find("rfilename") : item.end();
    if (!item.is_object() || name == item.end() || !name->is_string()) throw bad("cannot be read");
    if (!is_safe_path(name->get<std::string>())) {
      throw bad(str("names a file outside of the folder, ", in_quotes(name->get<std::string>())));
    }
    files_.push_back(name->get<std::string>());
  }
}

Remote Hub::find(const std::string& file) {
  HttpRequest request;
  request.method = HttpRequest::Method::kHead;
  request.url = file_url(file);
  const auto response = ask(request, file);
  const std::string linked = response.header("x-linked-etag"), size = response.header("x-linked-size");
  Remote remote{file, plain_etag(linked.empty() ? response.header("etag") : linked),
                number(size.empty() ? response.header("content-length") : size)};
  if (remote.etag.empty() || remote.bytes < 0) {
    throw Error(Kind::kCheckpoint, str("cannot download ", file, " of ", id_, ": ", place(),
                                       " tells neither its size nor its checksum"));
  }
  return remote;
}

// One request and what it brings. True: the blob is complete and right.
bool Hub::fetch_blob(const Remote& remote, Blob& blob) {
  if (blob.size() == remote.bytes) return blob.finish();
  HttpRequest request;
  request.url = file_url(remote.file);
  request.token = options_.token;
  const int64_t before = done_ - blob.size();
  request.from = blob.size();
  request.begin = [&](const HttpResponse& head) {
    const std::string range = head.header("content-range");
    const bool goes_on = head.status == 206 && range.starts_with(str("bytes ", blob.size(), "-"));
    if (!goes_on && blob.size() > 0) blob.restart();
    if (head.status == 206 && !goes_on)
      throw Error(Kind::kCheckpoint, "the server sends another part than asked");
  };
  request.data = [&](std::span<const std::byte> bytes) {
    if (blob.size() + static_cast<int64_t>(bytes.size()) > remote.bytes) {
      throw Error(Kind::kCheckpoint, str(remote.file, " of ", id_, " is longer than the ", remote.bytes,
                                         " bytes that the server announced; try again later"));
    }
    blob.append(bytes);
    done_ = before + blob.size();
    report(remote.file);
  };
  for (int i = 0; blob.size() < remote.bytes; ++i) {
    request.from = blob.size();
    const auto response = client_.send(request);
    if (response.status == 416) blob.restart();
    const bool has_bytes = response.status == 200 || response.status == 206;
    if (response.failure.empty() && has_bytes && blob.size() >= remote.bytes) break;
    if ((!may_help_again(response) && response.status != 416) || i + 1 >= options_.tries)
      refuse(response, remote.file);
    if (blob.size() > request.from) i = -1;  // progress: the count begins anew
    wait(std::max(i, 0), response);
  }
  return blob.finish();
}

void Hub::fetch(const Remote& remote) {
  const fs::path path = blob_path(remote);
  std::error_code ignored;
  if (fs::exists(path) && static_cast<int64_t>(fs::file_size(path, ignored)) == remote.bytes) {
    done_ += remote.bytes;
  } else {
    fs::remove(path, ignored);
    Blob blob(path, remote.bytes);
    if (blob.is_done()) {
      done_ += remote.bytes;
    } else {
      const int64_t before = done_;
      done_ += blob.size();
      bool is_right = fetch_blob(remote, blob);
      if (!is_right) {  // what lay there may have been of another version
        done_ = before;
        is_right = fetch_blob(remote, blob);
      }
      if (!is_right) {
        throw Error(Kind::kCheckpoint, str(remote.file, " of ", id_, ": the checksum of what ", place(),
                                           " sends is not the announced ", remote.etag,
                                           "; nothing of it was kept, try again later"));
      }
    }
  }
  link(remote);
  report(remote.file);
}

void Hub::link(const Remote& remote) const {
  const fs::path file = snapshot() / remote.file;
  try {
    fs::create_directories(file.parent_path());
    const fs::path target = fs::relative(fs::absolute(blob_path(remote)).lexically_normal(),
                                         fs::absolute(file.parent_path()).lexically_normal());
    if (fs::is_symlink(file) && fs::read_symlink(file) == target) return;
    fs::remove(file);
    fs::create_symlink(target, file);
  } catch (const fs::filesystem_error& e) {
    throw Error(Kind::kUsage, str("cannot write ", file.string(), ": ", e.code().message()));
  }
}

void Hub::check_room(const std::vector<Remote>& remotes) const {
  std::map<std::string, int64_t> needed;  // by blob: two files may share one
  std::error_code error;
  for (const auto& r : remotes) {
    if (fs::exists(blob_path(r))) continue;
    const auto part = fs::file_size(blob_path(r).string() + ".incomplete", error);
    needed[r.etag] = r.bytes - (error ? 0 : static_cast<int64_t>(part));
  }
  int64_t bytes = 0;
  for (const auto& [_, n] : needed) {
    if (__builtin_add_overflow(bytes, std::max<int64_t>(n, 0), &bytes)) bytes = INT64_MAX;
  }
  struct statvfs disk = {};
  if (::statvfs(folder().c_str(), &disk) != 0) return;
  const auto room = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  if (bytes > room) {
    throw Error(Kind::kCapacity, str("downloading ", id_, " needs ", size_text(bytes), ", the disk of ",
                                     options_.cache.string(), " has ", size_text(room),
                                     " left; free some space or point HF_HOME to another disk"));
  }
}

ModelSource Hub::fetch_all() {
  list_files();
  if (std::find(files_.begin(), files_.end(), "model_index.json") == files_.end()) {
    throw Error(Kind::kUsage,
                str(id_, " has no model_index.json: it is no diffusers folder; many models have a second ",
                    "page whose name ends in -Diffusers"));
  }
  fetch(find("model_index.json"));
  const Json index = read_json(snapshot() / "model_index.json");
  if (options_.check) options_.check(index);
  std::vector<std::string> components;
  for (const auto& [name, value] : index.items()) {
    const bool is_component =
        value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string();
    if (is_component && name != "safety_checker") components.push_back(name);
  }
  done_ = total_ = 0;
  std::vector<Remote> remotes;
  for (const auto& file : needed_files(files_, components)) {
    remotes.push_back(find(file));
    total_ += remotes.back().bytes;
  }
  check_room(remotes);
  for (const auto& r : remotes) fetch(r);
  if (const auto missing = missing_components(snapshot()); !missing.empty()) {
    throw Error(Kind::kUsage, str(id_, " offers no files that can be used for ", list_text(missing, 6),
                                  " (pickles are never loaded); look for a copy with safetensors"));
  }
  if (options_.revision != commit_) write_file_atomically(folder() / "refs" / options_.revision, commit_);
  return {snapshot(), id_, commit_, Provenance::kDownload};
}

}  // namespace

ModelSource download(const std::string& id, const DownloadOptions& options, const std::stop_token& stop) {
  if (hub_id(id) != id) throw Error(Kind::kUsage, str(in_quotes(id), " is no model id such as org/name"));
  const bool is_odd = options.revision.find("..") != std::string::npos || options.revision.starts_with('/');
  if (is_odd)
    throw Error(Kind::kUsage, str("revision ", in_quotes(options.revision), " is no branch, tag or commit"));
  return Hub(id, options, stop).fetch_all();
}

}  // namespace atelier::hub
