// Expansion of rows, shares of nodes, batches.
#include "request/work.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

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

// Places of a list by the hashes of texts that belong to them: eight bytes for each, in a table with gaps.
class PlacesByText {
 public:
  void add(std::string_view text, size_t place) {
    if (2 * ++count_ > slots_.size()) grow();
    insert({static_cast<uint32_t>(std::hash<std::string_view>()(text)), static_cast<uint32_t>(place + 1)});
  }
  // The first place of this hash for which holds(place) is true.
  template <class Holds>
  std::optional<size_t> find(std::string_view text, const Holds& holds) const {
    if (slots_.empty()) return std::nullopt;
    const auto hash = static_cast<uint32_t>(std::hash<std::string_view>()(text));
    for (size_t at = begin_of(hash); slots_[at].place != 0; at = (at + 1) % slots_.size()) {
      if (slots_[at].hash == hash && holds(slots_[at].place - 1)) return slots_[at].place - 1;
    }
    return std::nullopt;
  }

 private:
  struct Bucket {
    uint32_t hash = 0, place = 0;  // from 1; 0: a gap
  };
  size_t begin_of(uint32_t hash) const { return hash % slots_.size(); }
  void insert(Bucket slot) {
    size_t at = begin_of(slot.hash);
    while (slots_[at].place != 0) at = (at + 1) % slots_.size();
    slots_[at] = slot;
  }
  void grow() {
    const auto before = std::exchange(slots_, std::vector<Bucket>(std::max<size_t>(64, 2 * slots_.size())));
    for (const Bucket& slot : before) {
      if (slot.place != 0) insert(slot);
    }
  }

  std::vector<Bucket> slots_;
  size_t count_ = 0;
};

// The names of a list's requests so far, and the folders that they lie in.
class TakenNames {
 public:
  explicit TakenNames(const RequestList& requests) : requests_(requests) {}

  // Who is in the way of this name, or nobody.
  std::optional<Request> rival(const std::string& name) const {
    std::optional<size_t> found = find_file(name);
    for (size_t at = name.rfind('/'); !found && at != std::string::npos && at > 0;
         at = name.rfind('/', at - 1))
      found = find_file(std::string_view(name).substr(0, at));
    if (!found) found = find_folder(name);
    return found ? std::optional(requests_[*found]) : std::nullopt;
  }
  // Of the request that the list gets next.
  void add(const std::string& name) {
    files_.add(name, requests_.size());
    for (size_t at = name.rfind('/'); at != std::string::npos && at > 0; at = name.rfind('/', at - 1)) {
      const auto folder = std::string_view(name).substr(0, at);
      if (find_folder(folder)) break;
      folders_.add(folder, requests_.size());
    }
  }

 private:
  std::optional<size_t> find_file(std::string_view name) const {
    return files_.find(name, [&](size_t place) { return requests_[place].name == name; });
  }
  std::optional<size_t> find_folder(std::string_view folder) const {
    if (last_folder_ && last_folder_->first == folder) return last_folder_->second;
    const auto found = folders_.find(folder, [&](size_t place) {
      const std::string name = requests_[place].name;
      return name.size() > folder.size() && name.starts_with(folder) && name[folder.size()] == '/';
    });
    if (found) last_folder_ = {std::string(folder), *found};
    return found;
  }

  const RequestList& requests_;
  PlacesByText files_, folders_;
  mutable std::optional<std::pair<std::string, size_t>>
      last_folder_;  // most rows lie where the last one does
};

void check_names(const std::vector<Request>& some, const TakenNames& taken) {
  for (const Request& request : some) {
    const auto rival = taken.rival(request.name);
    if (!rival) continue;
    const bool is_same = rival->name == request.name;
    throw Error(Kind::kItem, str("the output name \"", request.name, "\" is already used ",
                                 is_same ? "by " : str("as \"", rival->name, "\" by "), rival->where));
  }
}

// Leaves the bad rows of a share of `count` good ones.
void keep_bad_of(std::vector<BadRow>& bad, const Range& share, int64_t count) {
  std::erase_if(bad, [&](const BadRow& row) {
    const int64_t at = std::max<int64_t>(0, std::min<int64_t>(row.before, count - 1));
    return at < share.begin || at >= share.end();
  });
}

}  // namespace

RequestList expand(Prompts& prompts, const PromptDefaults& defaults) {
  const RowList rows = std::exchange(prompts.rows, {});
  int64_t total = 0;
  bool may_meet = false;  // indices differ, so only names of rows' own can meet others
  for (const PromptRow& row : rows) {
    total += images_of(row, defaults);
    may_meet = may_meet || !row.custom_name.empty();
  }
  if (total > kMaxRequests) {
    throw Error(Kind::kUsage, str(total, " pictures are asked for; at most ", kMaxRequests,
                                  " fit into one run: split the file"));
  }
  RequestList requests;
  TakenNames taken(requests);
  std::vector<uint32_t> row_of;  // of every request, where they are shared out
  int64_t good = 0;
  for (const PromptRow& row : rows) {
    try {
      const std::vector<Request> some = requests_of(row, defaults);
      if (may_meet) check_names(some, taken);
      for (const Request& request : some) {
        if (may_meet) taken.add(request.name);
        requests.push_back(request);
        if (defaults.nodes > 1) row_of.push_back(static_cast<uint32_t>(good));
      }
      ++good;
    } catch (const Error& e) {
      prompts.bad.push_back({row.request.where, e.what(), good});
    }
  }
  if (defaults.nodes == 1) return requests;
  const Range share = Partition{good, defaults.nodes}[defaults.node];
  keep_bad_of(prompts.bad, share, good);
  size_t next = 0;
  return requests.only([&](const Request&) {
    const int64_t row = row_of[next++];
    return row >= share.begin && row < share.end();
  });
}

std::vector<std::vector<Request>> batches(const RequestList& requests, int batch_size) {
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
