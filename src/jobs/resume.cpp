// The resume scan.
#include "jobs/resume.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/parse_json.h"
#include "request/names.h"
#include "request/settings.h"

namespace atelier::jobs {
namespace {
namespace fs = std::filesystem;

std::string shown(const Json& settings, const std::string& key) {
  const auto at = settings.find(key);
  if (at == settings.end() || at->is_null()) return "unset";
  const std::string text = at->is_string() ? at->get<std::string>() : request::canonical(*at);
  return text.size() > 40 ? "(a long text)" : text;
}

// A name that a part of its path, or what stands there, keeps from being a file; empty if nothing does.
std::string obstacle(const fs::path& folder, const std::string& name) {
  std::error_code error;
  fs::path at = folder;
  const fs::path relative(name);
  for (auto part = relative.begin(); part != relative.end(); ++part) {
    at /= *part;
    const auto status = fs::symlink_status(at, error);
    if (!fs::exists(status)) return {};
    const bool is_last = std::next(part) == relative.end();
    if (fs::is_symlink(status)) return at.string() + " is a symbolic link, which is not followed";
    const bool is_folder = is_last && name.ends_with(request::kFolderSuffix);
    if (is_folder && fs::is_directory(status)) return {};
    if (is_folder) return at.string() + " is no folder of frames";
    if (is_last && fs::is_directory(status)) return at.string() + ": Is a directory";
    if (!is_last && !fs::is_directory(status)) return at.string() + " is a file, where a folder is needed";
    if (is_last && !fs::is_regular_file(status)) return at.string() + " is not a plain file";
  }
  return {};
}

class Scanner {
 public:
  Scanner(const fs::path& folder, const Ledger& ledger, const ScanRules& rules)
      : folder_(folder), ledger_(ledger), rules_(rules) {}

  Scan run(const request::RequestList& requests) {
    for (const auto& request : requests) take(request);
    out_.summary = summary(requests.size());
    return std::move(out_);
  }

 private:
  bool is_off() const { return rules_.resume == Resume::kOff; }

  void take(const request::Request& request) {
    std::string problem = obstacle(folder_, request.name);
    const Found found = problem.empty() ? look(request) : Found::kBlocked;
    ++out_.count[found];
    const bool keeps = rules_.resume == Resume::kKeepChanged;
    const bool is_kept = !is_off() && (found == Found::kDone ||
                                       (keeps && (found == Found::kChanged || found == Found::kForeign)));
    if (is_kept) {
      ++out_.skipped;
      return;
    }
    if (found == Found::kForeign && rules_.foreign == Foreign::kRefused) {
      problem = str((folder_ / request.name).string(),
                    " is there already, and is not a picture that this program has drawn: move it away or "
                    "choose another output_dir; --keep_changed keeps it, --no_resume draws over it");
    }
    if (!problem.empty()) {
      out_.refused.push_back({request, problem});
      return;
    }
    const auto record = ledger_.find(request.name);
    out_.failed_before += record && !record->is_done;
    out_.todo.push_back(request);
  }

  Found look(const request::Request& request) {
    const fs::path file = folder_ / request.name;
    std::error_code error;
    if (!fs::exists(file, error)) return Found::kAbsent;
    const Inspection seen = rules_.inspect(file);
    const auto record = ledger_.find(request.name);
    const bool is_known = record && record->is_done;
    if (is_known && seen.sha256 == record->sha256)
      return seen.is_whole ? compare(rules_.settings(request), record->settings) : Found::kDamaged;
    if (seen.is_whole && seen.look.is_object()) {
      const Json asked = rules_.settings(request);
      const Found found = compare(rules_.as_text(asked), seen.look);
      if (found == Found::kDone) adopt(request, asked, seen);
      return found;
    }
    const bool is_torn = !seen.is_whole && (is_known || seen.bytes == 0);
    return is_torn ? Found::kDamaged : Found::kForeign;
  }

  void adopt(const request::Request& request, const Json& asked, const Inspection& seen) {
    Json settings = asked;
    const auto seed = seen.look.find("seed");
    if (settings.value("seed", Json()).is_null() && seed != seen.look.end())
      settings["seed"] = parse_json(seed->get<std::string>());
    out_.adopted.push_back(done_record(request, settings, {.sha256 = seen.sha256, .bytes = seen.bytes}));
  }

  Found compare(const Json& asked, const Json& recorded) {
    const auto keys = request::differing_keys(asked, recorded);
    for (const std::string& key : keys) {
      Change& change = out_.changes[key];
      if (change.pictures++ == 0) change = {1, shown(recorded, key), shown(asked, key)};
    }
    return keys.empty() ? Found::kDone : Found::kChanged;
  }

  int64_t count(Found found) const {
    const auto at = out_.count.find(found);
    return at == out_.count.end() ? 0 : at->second;
  }

  std::string summary(size_t total) const {
    const int64_t foreign = count(Found::kForeign), changed = count(Found::kChanged);
    const auto files = [](int64_t n, const char* one, const char* many) {
      return str(n, n == 1 ? one : many);
    };
    if (is_off()) {
      const int64_t ours = count(Found::kDone) + changed + count(Found::kDamaged);
      std::string text;
      if (ours > 0)
        text = files(ours, " picture of an earlier run is", " pictures of earlier runs are") + " drawn over";
      if (foreign > 0 && rules_.foreign == Foreign::kOverwritten)
        text += str(text.empty() ? "" : "; ", files(foreign, " file", " files"), " of somebody else ",
                    foreign == 1 ? "is" : "are", " drawn over");
      return text;
    }
    if (count(Found::kAbsent) == static_cast<int64_t>(total)) return {};
    std::string text =
        str("resume: ", out_.skipped, " of ", total, " pictures are there, ", out_.todo.size(), " to draw");
    if (const int64_t damaged = count(Found::kDamaged); damaged > 0)
      text += "; " + files(damaged, " file is", " files are") + " damaged and drawn again";
    if (out_.failed_before > 0) text += str("; ", out_.failed_before, " failed the last time");
    if (foreign > 0 && rules_.resume == Resume::kKeepChanged)
      text += "; " + files(foreign, " file", " files") + " of somebody else kept";
    return changed > 0 ? text + changes_text(changed) : text;
  }

  std::string changes_text(int64_t changed) const {
    std::string text = str("; ", changed, changed == 1 ? " was" : " were", " made with other settings (");
    bool is_first = true;
    for (const auto& [key, change] : out_.changes) {
      text += str(is_first ? "" : ", ", key, ": ", change.pictures, ", ", change.was, " -> ", change.is);
      is_first = false;
    }
    return text + (rules_.resume == Resume::kKeepChanged ? ") and kept: without resume they are drawn again"
                                                         : ") and drawn again");
  }

  const fs::path& folder_;
  const Ledger& ledger_;
  const ScanRules& rules_;
  Scan out_;
};

}  // namespace

Scan scan(const request::RequestList& requests, const fs::path& folder, const Ledger& ledger,
          const ScanRules& rules) {
  return Scanner(folder, ledger, rules).run(requests);
}

}  // namespace atelier::jobs
