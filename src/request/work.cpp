// Expansion of rows, shares of nodes, batches.
#include "request/work.h"

#include <tuple>
#include <unordered_map>

#include "base/error.h"
#include "base/partition.h"
#include "request/names.h"

namespace atelier::request {
namespace {

constexpr int64_t kMaxItems = 10'000'000;

std::vector<Item> items_of(const PromptRow& row, const PromptDefaults& defaults) {
  const int images = row.images.value_or(defaults.images);
  const std::optional<uint64_t> seed = row.item.seed ? row.item.seed : defaults.seed;
  std::vector<Item> items(static_cast<size_t>(images), row.item);
  for (int s = 0; s < images; ++s) {
    Item& item = items[static_cast<size_t>(s)];
    const std::optional<int> sub = images > 1 ? std::optional<int>(s) : std::nullopt;
    item.sub = s;
    if (seed) item.seed = *seed + static_cast<uint64_t>(s);
    item.name = row.custom_name.empty() ? default_name(item.index, sub, defaults.suffix)
                                        : custom_name(row.custom_name, sub, defaults.suffix);
  }
  return items;
}

auto shape_of(const Item& item) {
  return std::tie(item.height, item.width, item.steps, item.guidance, item.has_negative);
}

}  // namespace

std::vector<Item> expand(Prompts& prompts, const PromptDefaults& defaults) {
  int64_t total = 0;
  for (const PromptRow& row : prompts.rows) total += row.images.value_or(defaults.images);
  if (total > kMaxItems) {
    throw Error(Kind::kUsage, str(total, " pictures are asked for; at most ", kMaxItems,
                                  " fit into one run: split the file"));
  }
  std::vector<Item> items;
  std::unordered_map<std::string, std::string> names;  // name -> where
  std::vector<PromptRow> good;
  for (PromptRow& row : prompts.rows) {
    try {
      std::vector<Item> some = items_of(row, defaults);
      for (const Item& item : some) {
        const auto found = names.find(item.name);
        if (found == names.end()) continue;
        throw Error(Kind::kItem,
                    str("the output name \"", item.name, "\" is already used by ", found->second));
      }
      for (Item& item : some) {
        names.emplace(item.name, item.where);
        items.push_back(std::move(item));
      }
      good.push_back(std::move(row));
    } catch (const Error& e) {
      prompts.bad.push_back({row.item.where, e.what()});
    }
  }
  prompts.rows = std::move(good);
  return items;
}

std::vector<PromptRow> rows_of_node(const std::vector<PromptRow>& rows, int node, int nodes) {
  const Range share = Partition{static_cast<int64_t>(rows.size()), nodes}[node];
  return {rows.begin() + share.begin, rows.begin() + share.end()};
}

std::vector<std::vector<Item>> batches(const std::vector<Item>& items, int batch_size) {
  if (batch_size < 1) throw Error(Kind::kUsage, str("--batch_size must be at least 1, not ", batch_size));
  std::vector<std::vector<Item>> out;
  for (const Item& item : items) {
    const bool fits = !out.empty() && out.back().size() < static_cast<size_t>(batch_size) &&
                      shape_of(out.back().front()) == shape_of(item);
    if (!fits) out.emplace_back();
    out.back().push_back(item);
  }
  return out;
}

}  // namespace atelier::request
