// Expansion of rows, shares of nodes, batches.
#include "request/work.h"

#include <unordered_map>

#include "base/error.h"
#include "base/partition.h"
#include "request/names.h"

namespace atelier::request {
namespace {

constexpr int64_t kMaxRequests = 10'000'000;

std::vector<Request> requests_of(const PromptRow& row, const PromptDefaults& defaults) {
  const int images = row.images.value_or(defaults.images);
  const std::optional<uint64_t> seed = row.request.seed ? row.request.seed : defaults.seed;
  std::vector<Request> requests(static_cast<size_t>(images), row.request);
  for (int s = 0; s < images; ++s) {
    Request& request = requests[static_cast<size_t>(s)];
    const std::optional<int> sub = images > 1 ? std::optional<int>(s) : std::nullopt;
    request.sub = s;
    if (seed) request.seed = *seed + static_cast<uint64_t>(s);
    request.name = row.custom_name.empty() ? default_name(request.index, sub, defaults.suffix)
                                           : custom_name(row.custom_name, sub, defaults.suffix);
  }
  return requests;
}

}  // namespace

std::vector<Request> expand(Prompts& prompts, const PromptDefaults& defaults) {
  int64_t total = 0;
  for (const PromptRow& row : prompts.rows) total += row.images.value_or(defaults.images);
  if (total > kMaxRequests) {
    throw Error(Kind::kUsage, str(total, " pictures are asked for; at most ", kMaxRequests,
                                  " fit into one run: split the file"));
  }
  std::vector<Request> requests;
  std::unordered_map<std::string, std::string> names;  // name -> where
  std::vector<PromptRow> good;
  for (PromptRow& row : prompts.rows) {
    try {
      std::vector<Request> some = requests_of(row, defaults);
      for (const Request& request : some) {
        const auto found = names.find(request.name);
        if (found == names.end()) continue;
        throw Error(Kind::kItem,
                    str("the output name \"", request.name, "\" is already used by ", found->second));
      }
      for (Request& request : some) {
        names.emplace(request.name, request.where);
        requests.push_back(std::move(request));
      }
      good.push_back(std::move(row));
    } catch (const Error& e) {
      prompts.bad.push_back({row.request.where, e.what()});
    }
  }
  prompts.rows = std::move(good);
  return requests;
}

std::vector<PromptRow> rows_of_node(const std::vector<PromptRow>& rows, int node, int nodes) {
  const Range share = Partition{static_cast<int64_t>(rows.size()), nodes}[node];
  return {rows.begin() + share.begin, rows.begin() + share.end()};
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
