#include "weights/save.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/quote.h"
#include "weights/safetensors_writer.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

// Part of a canonical tensor that becomes rows of a checkpoint tensor.
struct Source {
  const ManifestEntry* asked;
  Range rows, cols;  // of the canonical tensor; size 0: all
  Range to;          // rows of the checkpoint tensor; size 0: all
};

struct Target {
  std::vector<int64_t> shape;
  std::vector<Source> sources;
};

// In the order in which the checkpoint's tensors are met first.
struct Targets {
  std::vector<std::string> order;
  std::map<std::string, Target> by_name;
  void add(const std::string& name, const std::vector<int64_t>& shape, const Source& source) {
    const auto [at, fresh] = by_name.try_emplace(name, Target{shape, {}});
    if (fresh) order.push_back(name);
    auto& target = at->second;
    if (source.to.size > 0) target.shape[0] = std::max(target.shape[0], source.to.end());
    target.sources.push_back(source);
  }
};

[[noreturn]] void fail(std::string_view name, std::string_view why) {
  throw Error(Kind::kUsage, str("cannot write ", in_quotes(name), ": ", why));
}

// Follows one rule backwards.
void split(const NameRule& rule, const Match& found, const ManifestEntry& asked, Targets& targets) {
  if (rule.is_transposed) fail(asked.name, "its rule turns it over");
  const auto along = static_cast<size_t>(rule.axis);
  const auto parts = static_cast<int64_t>(rule.parts.size());
  int64_t begin = 0;
  for (const auto& part : rule.parts) {
    const std::string name = fill(part.name, found);
    auto shape = asked.shape;
    Source source{&asked, {}, {}, part.rows};
    if (parts > 1) {
      if (along >= shape.size()) fail(asked.name, "it has too few dimensions to be cut");
      const bool by_rows = rule.axis == 0 && part.rows.size > 0;
      if (!by_rows && shape[along] % parts != 0) fail(asked.name, "it cannot be cut equally");
      const int64_t size = by_rows ? part.rows.size : shape[along] / parts;
      (rule.axis == 0 ? source.rows : source.cols) = {begin, size};
      begin += size;
      shape[along] = size;
    }
    if (part.rows.size > 0) shape[0] = part.rows.end();
    targets.add(name, shape, source);
  }
  if (parts > 1 && begin != asked.shape[along]) fail(asked.name, "the rule's rows do not cover it");
}

Targets targets_of(const std::vector<ManifestEntry>& asked, std::span<const NameRule> rules) {
  Targets targets;
  for (const auto& a : asked) {
    const auto fits = [&](const NameRule& rule) { return match(rule.canonical, a.name).has_value(); };
    const auto rule = std::find_if(rules.begin(), rules.end(), fits);
    if (rule == rules.end()) {
      targets.add(a.name, a.shape, {&a, {}, {}, {}});
    } else {
      split(*rule, *match(rule->canonical, a.name), a, targets);
    }
  }
  for (const auto& [name, target] : targets.by_name) {
    int64_t rows = 0;
    for (const auto& s : target.sources) rows += s.to.size;
    const bool is_whole = target.sources.size() == 1 && rows == 0;
    if (!is_whole && rows != target.shape[0]) fail(name, "the rules leave some of its rows undefined");
  }
  return targets;
}

at::Tensor make(const WeightStore& store, const Target& target, const SaveOptions& options) {
  const auto on_device = at::TensorOptions(options.dtype).device(options.device);
  at::Tensor whole = at::empty(target.shape, on_device);
  for (const auto& s : target.sources) {
    at::Tensor part = s.to.size > 0 ? whole.narrow(0, s.to.begin, s.to.size) : whole;
    const std::vector<Range> rows(s.rows.size > 0 ? 1 : 0, s.rows), cols(s.cols.size > 0 ? 1 : 0, s.cols);
    store.read_into(part, s.asked->name, s.asked->shape, rows, cols);
  }
  return whole.cpu();
}

}  // namespace

int64_t save_checkpoint(const WeightStore& store, std::span<const NameRule> rules,
                        const SaveOptions& options) {
  const c10::InferenceMode no_grad;
  auto asked = store.manifest();
  std::erase_if(asked, [](const ManifestEntry& entry) { return is_added(entry.name); });
  const Targets targets = targets_of(asked, rules);
  std::vector<TensorSpec> specs;
  int64_t bytes = 0;
  for (const auto& name : targets.order) {
    specs.push_back({name, from_torch(options.dtype), targets.by_name.at(name).shape});
    bytes += specs.back().bytes();
  }
  ShardedWriter writer({options.folder, options.stem, options.max_shard_bytes}, std::move(specs));
  for (const auto& name : targets.order) {
    const at::Tensor t = make(store, targets.by_name.at(name), options);
    writer.append({static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()});
  }
  store.check();
  writer.finish();
  return bytes;
}

}  // namespace atelier::weights
