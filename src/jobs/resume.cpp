// The resume scan.
#include "jobs/resume.h"

#include "base/error.h"
#include "request/settings.h"

namespace atelier::jobs {
namespace {

std::string shown(const Json& settings, const std::string& key) {
  const auto at = settings.find(key);
  if (at == settings.end() || at->is_null()) return "unset";
  const std::string text = at->is_string() ? at->get<std::string>() : request::canonical(*at);
  return text.size() > 40 ? "(a long text)" : text;
}

Found look(const request::Request& request, const std::filesystem::path& file, const Ledger& ledger,
           const ScanRules& rules, Scan& out) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return Found::kAbsent;
  if (!rules.is_whole_file(file)) return Found::kDamaged;
  const auto record = ledger.find(request.name);
  if (!record || !record->is_done) return Found::kUnrecorded;
  const Json asked = rules.settings(request);
  const auto keys = request::differing_keys(asked, record->settings);
  for (const std::string& key : keys) {
    Change& change = out.changes[key];
    if (change.pictures++ == 0) change = {1, shown(record->settings, key), shown(asked, key)};
  }
  return keys.empty() ? Found::kDone : Found::kChanged;
}

std::string summary_of(const Scan& scan, size_t total, Resume resume) {
  const auto count = [&](Found found) {
    const auto at = scan.count.find(found);
    return at == scan.count.end() ? int64_t{0} : at->second;
  };
  const int64_t changed = count(Found::kChanged), damaged = count(Found::kDamaged);
  if (count(Found::kAbsent) == static_cast<int64_t>(total)) return {};
  std::string text =
      str("resume: ", scan.skipped, " of ", total, " pictures are there, ", scan.todo.size(), " to draw");
  if (damaged > 0)
    text += str("; ", damaged, damaged == 1 ? " file is" : " files are", " damaged and drawn again");
  if (scan.failed_before > 0) text += str("; ", scan.failed_before, " failed the last time");
  if (changed == 0) return text;
  text += str("; ", changed, changed == 1 ? " was" : " were", " made with other settings (");
  bool is_first = true;
  for (const auto& [key, change] : scan.changes) {
    text += str(is_first ? "" : ", ", key, ": ", change.pictures, ", ", change.was, " -> ", change.is);
    is_first = false;
  }
  return text + (resume == Resume::kKeepChanged ? ") and kept: without resume they are drawn again"
                                                : ") and drawn again");
}

}  // namespace

Scan scan(const std::vector<request::Request>& requests, const std::filesystem::path& folder,
          const Ledger& ledger, const ScanRules& rules) {
  Scan out;
  if (rules.resume == Resume::kOff) {
    out.todo = requests;
    return out;
  }
  for (const request::Request& request : requests) {
    const Found found = look(request, folder / request.name, ledger, rules, out);
    ++out.count[found];
    const bool is_kept = found == Found::kDone || found == Found::kUnrecorded ||
                         (found == Found::kChanged && rules.resume == Resume::kKeepChanged);
    if (is_kept) {
      ++out.skipped;
      continue;
    }
    const auto record = ledger.find(request.name);
    out.failed_before += record && !record->is_done;
    out.todo.push_back(request);
  }
  out.summary = summary_of(out, requests.size(), rules.resume);
  return out;
}

}  // namespace atelier::jobs
