#include "weights/checkpoint_store.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"
#include "weights/convert.h"
#include "weights/decode.h"
#include "weights/reduced.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

constexpr size_t kMostLines = 20;        // of one report
constexpr int64_t kTaskBytes = 1 << 20;  // what one thread reads at a time

// All numbers of a small tensor.
std::vector<float> numbers_of(const TensorFile& file, const TensorEntry& entry) {
  std::vector<std::byte> bytes(static_cast<size_t>(entry.bytes));
  file.read(entry.offset, bytes);
  std::vector<float> numbers(bytes.size() / static_cast<size_t>(size_of(entry.dtype)));
  decode(entry.dtype, bytes.data(), static_cast<int64_t>(numbers.size()), numbers.data());
  return numbers;
}

std::string asked_text(at::IntArrayRef full) {
  return shape_text({full.data(), full.size()});
}

}  // namespace

CheckpointStore::CheckpointStore(Shards shards, const Section& section)
    : shards_(std::move(shards)), pool_(default_workers()) {
  for (const auto& file : shards_.files) add(*file, section);
}

void CheckpointStore::add(const TensorFile& file, const Section& section) {
  const std::string path = file.path().string();
  const auto bytes_of = [&](const TensorEntry& entry) {
    std::string bytes(static_cast<size_t>(entry.bytes), '\0');
    file.read(entry.offset, std::as_writable_bytes(std::span(bytes)));
    return bytes;
  };
  const Reduced reduced = find_reduced(path, file.entries(), file.metadata(), bytes_of);
  for (const auto& [name, entry] : file.entries()) {
    if (reduced.marks.contains(name) || !section.holds(name)) continue;
    StoredTensor stored{&file, &entry, nullptr};
    if (const auto scale = reduced.scale_of.find(name); scale != reduced.scale_of.end()) {
      stored.scales =
          &scales_.try_emplace(name, numbers_of(file, file.entries().at(scale->second))).first->second;
    }
    std::string inner = name.substr(section.prefix.size());
    if (!raw_.emplace(inner, Canonical{{{inner, stored, {}}}, 0}).second) {
      throw Error(Kind::kCheckpoint, str(path, ": tensor ", in_quotes(name),
                                         " stands in another file of the folder too; keep one of them"));
    }
  }
}

void CheckpointStore::adopt(std::span<const NameRule> rules) {
  for (const auto& rule : rules) {
    ENSURE(!rule.parts.empty() && (rule.axis == 0 || rule.axis == 1));
    ENSURE(!rule.is_transposed || rule.parts.size() == 1);
    adopt(rule);
    rules_.push_back(rule);
  }
}

void CheckpointStore::adopt(const NameRule& rule) {
  for (const auto& part : rule.parts) {
    for (const auto& [name, _] : raw_) {
      const auto found = match(part.name, name);
      if (!found) continue;
      Canonical made{{}, rule.axis, rule.is_transposed};
      for (const auto& p : rule.parts) {
        CheckpointPiece piece{fill(p.name, *found), {}, p.rows};
        if (const auto at = raw_.find(piece.name); at != raw_.end())
          piece.stored = at->second.pieces[0].stored;
        made.pieces.push_back(std::move(piece));
      }
      const auto [at, fresh] = canonical_.try_emplace(fill(rule.canonical, *found), made);
      if (!fresh && !at->second.is_complete() && made.is_complete()) at->second = std::move(made);
    }
  }
}

const Canonical* CheckpointStore::find(std::string_view name) const {
  if (const auto at = canonical_.find(name); at != canonical_.end()) return &at->second;
  if (const auto at = raw_.find(name); at != raw_.end()) return &at->second;
  return nullptr;
}

bool CheckpointStore::has(std::string_view name) const {
  return find(name) != nullptr;
}

std::vector<int64_t> CheckpointStore::shape(std::string_view name) const {
  const Canonical* tensor = find(name);
  return tensor == nullptr ? std::vector<int64_t>() : tensor->fit().shape;
}

void CheckpointStore::note(Problem problem) const {
  const std::lock_guard lock(mutex_);
  const bool known =
      std::any_of(problems_.begin(), problems_.end(), [&](auto& p) { return p.name == problem.name; });
  if (!known) problems_.push_back(std::move(problem));
}

void CheckpointStore::note_read(std::string_view name, at::IntArrayRef full, const Canonical& tensor) const {
  const std::lock_guard lock(mutex_);
  for (const auto& piece : tensor.pieces) read_.insert(piece.name);
  if (asked_names_.emplace(name).second) manifest_.push_back({std::string(name), full.vec()});
}

void CheckpointStore::read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full,
                                std::span<const Range> rows, std::span<const Range> cols) const {
  const c10::InferenceMode no_grad;
  const std::span<const int64_t> shape(full.data(), full.size());
  const Slice slice{rows, cols};
  ENSURE(out.is_contiguous() && out.numel() == count_elements(shape, slice));
  if (is_added(name)) {
    if (!out.is_meta()) out.zero_();
    return;
  }
  const Canonical* tensor = find(name);
  std::string found;
  if (tensor != nullptr) {
    note_read(name, full, *tensor);
    const auto fit = tensor->fit();
    found = fit.why_not;
    if (found.empty() && !same_shape(fit.shape, shape)) found = shape_text(fit.shape);
  }
  if (tensor == nullptr || !found.empty()) {
    note({std::string(name), asked_text(full), found});
    if (!out.is_meta()) out.zero_();
    return;
  }
  if (out.is_meta() || out.numel() == 0) return;
  if (tensor->is_transposed) return read_transposed(*tensor, out, name, slice);
  const auto bands = plan(*tensor, shape, slice);
  if (out.is_cpu()) {
    read_on_cpu(bands, out, name);
  } else {
    read_on_cuda(bands, out, name);
  }
}

// The columns are the stored tensor's rows.
void CheckpointStore::read_transposed(const Canonical& tensor, at::Tensor& out, std::string_view name,
                                      const Slice& slice) const {
  auto straight = tensor;
  straight.is_transposed = false;
  const auto stored = straight.fit().shape;
  const auto bands = plan(straight, stored, {slice.cols, slice.rows});
  at::Tensor turned = at::empty({out.size(1), out.size(0)}, out.options());
  if (out.is_cpu()) {
    read_on_cpu(bands, turned, name);
  } else {
    read_on_cuda(bands, turned, name);
  }
  out.copy_(turned.t());
}

void CheckpointStore::read_on_cpu(std::span<const Band> bands, at::Tensor& out, std::string_view name) const {
  const Elements to{out.data_ptr(), out.scalar_type()};
  std::atomic<bool> is_unsound = false;
  for (const auto& band : bands) {
    const int64_t step = kTaskBytes / size_of(band.dtype);
    const auto stored = to_torch(band.dtype);
    pool_.run((band.elements + step - 1) / step, [&](int64_t task) {
      const Range part{task * step, std::min(step, band.elements - task * step)};
      const Elements here{to.at(band.first + part.begin), to.dtype};
      if (stored == to.dtype) {
        copy_out(band, part, static_cast<std::byte*>(here.data));
      } else {
        const auto staged = std::make_unique_for_overwrite<std::byte[]>(part.size * size_of(band.dtype));
        copy_out(band, part, staged.get());
        convert(here, {staged.get(), stored}, part.size);
      }
      if (has_non_finite(here, part.size)) is_unsound = true;
    });
  }
  if (!is_unsound) return;
  const std::lock_guard lock(mutex_);
  unsound_.emplace(name);
}

void CheckpointStore::read_on_cuda(std::span<const Band> bands, at::Tensor& out,
                                   std::string_view name) const {
  const std::lock_guard one_at_a_time(upload_mutex_);
  auto& uploader = uploaders_[out.device().index()];
  if (!uploader) uploader = make_uploader(out.device());
  uploader->upload(bands, out, pool_);
  if (!out.is_floating_point()) return;
  const auto flat = out.view({-1});
  const bool is_byte = out.element_size() == 1;  // no comparison of 8-bit floats exists
  const auto [low, high] = at::aminmax(is_byte ? flat.to(at::kHalf) : flat);
  const std::lock_guard lock(mutex_);
  extremes_.push_back({std::string(name), low, high});
}

// Waits for the device. Called with mutex_ held.
void CheckpointStore::collect_extremes() const {
  if (extremes_.empty()) return;
  const c10::InferenceMode no_grad;
  std::map<int, std::pair<std::vector<at::Tensor>, std::vector<const std::string*>>> devices;
  for (const auto& e : extremes_) {
    auto& [values, names] = devices[e.low.device().index()];
    values.push_back(at::stack({e.low.to(at::kDouble), e.high.to(at::kDouble)}));
    names.push_back(&e.name);
  }
  for (auto& [device, found] : devices) {
    at::detail::getCUDAHooks().deviceSynchronize(static_cast<c10::DeviceIndex>(device));
    const at::Tensor all = at::stack(found.first).cpu();  // [tensors, 2]
    const double* value = all.const_data_ptr<double>();
    for (size_t i = 0; i < found.second.size(); ++i) {
      if (!std::isfinite(value[2 * i]) || !std::isfinite(value[2 * i + 1])) unsound_.insert(*found.second[i]);
    }
  }
  extremes_.clear();
}

std::vector<std::string> CheckpointStore::names() const {
  std::vector<std::string> out;
  for (const auto& [name, _] : raw_) out.push_back(name);
  return out;
}

std::vector<std::string> CheckpointStore::unread() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [name, _] : raw_) {
    if (!read_.contains(name)) out.push_back(name);
  }
  return out;
}

std::vector<ManifestEntry> CheckpointStore::manifest() const {
  const std::lock_guard lock(mutex_);
  return manifest_;
}

std::string CheckpointStore::title() const {
  std::string all;
  for (const auto& file : shards_.files) {
    all += str(all.empty() ? "" : " ", file->path().filename().string());
    for (const char* key :
         {"general.name", "general.basename", "modelspec.title", "modelspec.architecture"}) {
      if (const auto at = file->metadata().find(key); at != file->metadata().end()) all += " " + at->second;
    }
  }
  return all;
}

// The checkpoint's own name for a canonical one, if a rule knows it.
std::string CheckpointStore::spelling(std::string_view canonical) const {
  for (const auto& rule : rules_) {
    if (const auto found = match(rule.canonical, canonical)) return fill(rule.parts[0].name, *found);
  }
  return std::string(canonical);
}

std::string CheckpointStore::describe(const Problem& problem) const {
  if (!problem.found.empty()) {
    return str("  ", in_quotes(problem.name), " needs ", problem.asked, ", found ", problem.found);
  }
  const std::string own = spelling(problem.name);
  std::string line = str("  ", in_quotes(own), " is missing, needs ", problem.asked);
  if (own != problem.name) line += str(" (or its part, for ", in_quotes(problem.name), ")");
  const auto near = nearest(own, names(), 2);
  return near.empty() ? line : line + "; nearest: " + list_text(near, 2);
}

void CheckpointStore::check() const {
  throw_problems({});
}

void CheckpointStore::check(std::span<const std::string_view> ignorable) const {
  auto extra = unread();
  std::erase_if(extra, [&](auto& name) { return any_glob_matches(ignorable, name); });
  throw_problems(extra);
}

void CheckpointStore::throw_problems(const std::vector<std::string>& extra) const {
  const std::lock_guard lock(mutex_);
  collect_extremes();
  if (problems_.empty() && unsound_.empty() && extra.empty()) return;
  std::vector<std::string> lines;
  const auto missing =
      std::count_if(problems_.begin(), problems_.end(), [](auto& p) { return p.found.empty(); });
  for (const auto& p : problems_) {
    if (lines.size() < kMostLines) lines.push_back(describe(p));
  }
  for (const auto& name : unsound_) {
    lines.push_back(
        str("  ", in_quotes(name),
            " holds NaN or infinity: the file is damaged, or the type it is loaded as is too narrow"));
  }
  for (const auto& name : extra) lines.push_back(str("  ", in_quotes(name), " is not part of this model"));
  std::string counts;
  const auto count = [&](size_t n, std::string_view what) {
    if (n > 0) counts += str(counts.empty() ? "" : ", ", n, " ", what);
  };
  count(static_cast<size_t>(missing), "missing");
  count(problems_.size() - static_cast<size_t>(missing), "of another shape");
  count(unsound_.size(), "with NaN or infinity");
  count(extra.size(), "unknown");
  const size_t all = problems_.size() + unsound_.size() + extra.size();
  std::string text = str(shards_.place.string(), ": the weights do not fit the model (tensors: ", counts,
                         "); check that it is the right model and config.json, or download it again");
  lines.resize(std::min(lines.size(), kMostLines));
  for (const auto& line : lines) text += "\n" + line;
  if (all > lines.size()) text += str("\n  and ", all - lines.size(), " more");
  throw Error(Kind::kCheckpoint, text);
}

}  // namespace atelier::weights
