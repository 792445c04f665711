// Expansion of rows, shares of nodes, batches.
#include "request/work.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <unordered_map>

#include "base/error.h"
#include "base/partition.h"
#include "request/names.h"

namespace atelier::request {
namespace {

constexpr int64_t kMaxRequests = 10'000'000;

bool takes_seeds(const PromptRow& row, const PromptDefaults& defaults) {
  return !defaults.seeds.empty() && !row.request.seed && !row.images;
}

int64_t images_of(const PromptRow& row, const PromptDefaults& defaults) {
  if (takes_seeds(row, defaults)) return std::ssize(defaults.seeds);
  return row.images.value_or(defaults.seeds.empty() ? defaults.images : 1);
}

// name/seed.png
std::vector<Request> requests_by_seed(const PromptRow& row, const PromptDefaults& defaults) {
  const auto images = static_cast<size_t>(images_of(row, defaults));
  const uint64_t first = row.request.seed.value_or(defaults.seeds.front());
  std::vector<Request> requests(images, row.request);
  for (size_t s = 0; s < images; ++s) {
    Request& request = requests[s];
    request.sub = static_cast<int>(s);
    request.seed = takes_seeds(row, defaults) ? defaults.seeds[s] : first + s;
    check_name(row.custom_name);
    request.name =
        custom_name(str(row.custom_name, "/", *request.seed), std::nullopt, defaults.suffix, defaults.kept);
  }
  return requests;
}

std::vector<Request> requests_of(const PromptRow& row, const PromptDefaults& defaults) {
  if (!defaults.seeds.empty()) return requests_by_seed(row, defaults);
  const int images = row.images.value_or(defaults.images);
  const std::optional<uint64_t> seed = row.request.seed ? row.request.seed : defaults.seed;
  std::vector<Request> requests(static_cast<size_t>(images), row.request);
  for (int s = 0; s < images; ++s) {
    Request& request = requests[static_cast<size_t>(s)];
    const std::optional<int> sub = images > 1 ? std::optional<int>(s) : std::nullopt;
    request.sub = s;
    if (seed) request.seed = *seed + static_cast<uint64_t>(s);
    request.name = row.custom_name.empty()
                       ? default_name(request.index, sub, defaults.suffix)
                       : custom_name(row.custom_name, sub, defaults.suffix, defaults.kept);
  }
  return requests;
}

// The names of requests so far, by their hashes.
class TakenNames {
 public:
  explicit TakenNames(const std::vector<Request>& requests) : requests_(requests) {}

  // Who is in the way of this name; null: nobody.
  const Request* rival(const std::string& name) const {
    if (const auto* same = find(name)) return same;
    for (size_t at = name.rfind('/'); at != std::string::npos && at > 0; at = name.rfind('/', at - 1)) {
      if (const auto* file = find(name.substr(0, at))) return file;
    }
    const auto inside = folders_.find(name);
    return inside == folders_.end() ? nullptr : &requests_[inside->second];
  }
  void add(size_t request) {
    const std::string& name = requests_[request].name;
    files_.emplace(std::hash<std::string>()(name), request);
    for (size_t at = name.rfind('/'); at != std::string::npos && at > 0; at = name.rfind('/', at - 1))
      folders_.emplace(name.substr(0, at), request);
  }

 private:
  const Request* find(const std::string& name) const {
    const auto [from, to] = files_.equal_range(std::hash<std::string>()(name));
    for (auto at = from; at != to; ++at) {
      if (requests_[at->second].name == name) return &requests_[at->second];
    }
    return nullptr;
  }

  const std::vector<Request>& requests_;
  std::unordered_multimap<size_t, size_t> files_;
  std::unordered_map<std::string, size_t> folders_;
};

void check_names(const std::vector<Request>& some, const TakenNames& taken) {
  for (const Request& request : some) {
    const Request* rival = taken.rival(request.name);
    if (!rival) continue;
    const bool is_same = rival->name == request.name;
    throw Error(Kind::kItem, str("the output name \"", request.name, "\" is already used ",
                                 is_same ? "by " : str("as \"", rival->name, "\" by "), rival->where));
  }
}

}  // namespace

std::vector<Request> expand(Prompts& prompts, const PromptDefaults& defaults) {
  int64_t total = 0;
  for (const PromptRow& row : prompts.rows) total += images_of(row, defaults);
  if (total > kMaxRequests) {
    throw Error(Kind::kUsage, str(total, " pictures are asked for; at most ", kMaxRequests,
                                  " fit into one run: split the file"));
  }
  // indices differ, so only names of rows' own can meet others
  const bool may_meet = std::any_of(prompts.rows.begin(), prompts.rows.end(),
                                    [](const PromptRow& row) { return !row.custom_name.empty(); });
  std::vector<Request> requests;
  TakenNames taken(requests);
  std::vector<size_t> begins;  // of every good row's requests
  std::vector<PromptRow> good;
  for (PromptRow& row : prompts.rows) {
    try {
      std::vector<Request> some = requests_of(row, defaults);
      if (may_meet) check_names(some, taken);
      begins.push_back(requests.size());
      for (Request& request : some) {
        requests.push_back(std::move(request));
        if (may_meet) taken.add(requests.size() - 1);
      }
      good.push_back(std::move(row));
    } catch (const Error& e) {
      prompts.bad.push_back({row.request.where, e.what(), std::ssize(good)});
    }
  }
  prompts.rows = std::move(good);
  if (defaults.nodes == 1) return requests;
  begins.push_back(requests.size());
  const Range share = Partition{std::ssize(prompts.rows), defaults.nodes}[defaults.node];
  keep_share(prompts, defaults.node, defaults.nodes);
  const auto at = [&](int64_t row) {
    return requests.begin() + static_cast<std::ptrdiff_t>(begins[static_cast<size_t>(row)]);
  };
  return {std::make_move_iterator(at(share.begin)), std::make_move_iterator(at(share.end()))};
}

std::vector<std::vector<Request>> batches(const std::vector<Request>& requests, int batch_size) {
  if (batch_size < 1) throw Error(Kind::kUsage, str("batch_size must be at least 1, not ", batch_size));
  std::vector<std::vector<Request>> out;
  std::string last;
  for (const Request& request : requests) {
    std::string key = batch_key(request);
    if (out.empty() || out.back().size() >= static_cast<size_t>(batch_size) || key != last)
      out.emplace_back();
    out.back().push_back(request);
    last = std::move(key);
  }
  return out;
}

}  // namespace atelier::request
