#include "weights/adapted_store.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "base/error.h"
#include "base/quote.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

constexpr std::string_view kUp = ".lora_B.weight", kDown = ".lora_A.weight", kAlpha = ".alpha",
                           kWeight = ".weight";

[[noreturn]] void fail(std::string_view where, std::string_view what) {
  throw Error(Kind::kCheckpoint, str(where, ": ", what));
}

bool fits(const LowRank& change, std::span<const int64_t> shape) {
  return shape.size() == 2 && shape[0] == change.up.size(0) && shape[1] == change.down.size(1);
}

std::string text(const at::Tensor& t) {
  return shape_text({t.sizes().data(), t.sizes().size()});
}

// Adds one change to a slice of a canonical matrix, of which the checkpoint's tensor is a piece.
void add(at::Tensor& slice, const LowRank& change, const RawPiece& piece, std::span<const Range> rows,
         std::span<const Range> cols) {
  int64_t row = 0;
  for (const Range r : rows) {
    const Range here = intersection(r, piece.rows);
    int64_t column = 0;
    for (const Range c : cols) {
      const Range across = intersection(c, piece.cols);
      if (here.size > 0 && across.size > 0) {
        const auto up = change.up.narrow(0, piece.first + here.begin - piece.rows.begin, here.size);
        const auto down = change.down.narrow(1, across.begin - piece.cols.begin, across.size);
        slice.narrow(0, row + here.begin - r.begin, here.size)
            .narrow(1, column + across.begin - c.begin, across.size)
            .addmm_(up.to(slice.options()), down.to(slice.options()), 1, change.scale);
      }
      column += c.size;
    }
    row += r.size;
  }
}

}  // namespace

LowRanks read_lora(const std::filesystem::path& file, std::string_view component, double strength) {
  LowRanks changes;
  std::map<std::string, double, std::less<>> alphas;
  const std::string prefix = str(component, ".");
  for (const auto& [name, tensor] : read_tensors(file)) {
    const auto layer = [&](std::string_view ending) {
      return name.substr(prefix.size(), name.size() - prefix.size() - ending.size());
    };
    const bool is_ours = name.starts_with(prefix);
    if (is_ours && name.ends_with(kUp)) {
      changes[layer(kUp)].up = tensor;
    } else if (is_ours && name.ends_with(kDown)) {
      changes[layer(kDown)].down = tensor;
    } else if (is_ours && name.ends_with(kAlpha) && tensor.numel() == 1) {
      alphas[layer(kAlpha)] = tensor.to(at::kDouble).item<double>();
    } else {
      fail(file.string(),
           str(in_quotes(name), " is no part of a LoRA for the ", component, " as diffusers writes it"));
    }
  }
  for (auto& [layer, change] : changes) {
    const auto &up = change.up, &down = change.down;
    if (!up.defined() || !down.defined()) {
      fail(file.string(),
           str(in_quotes(layer), " has only one of lora_A and lora_B; download the file again"));
    }
    if (up.dim() != 2 || down.dim() != 2 || up.size(1) != down.size(0) || up.size(1) == 0) {
      fail(file.string(), str(in_quotes(layer), ": lora_B ", text(up), " and lora_A ", text(down),
                              " are no factors of a matrix"));
    }
    const auto rank = static_cast<double>(up.size(1));
    const auto alpha = alphas.find(layer);
    change.scale = strength * (alpha == alphas.end() ? rank : alpha->second) / rank;
  }
  return changes;
}

AdaptedStore::AdaptedStore(std::unique_ptr<WeightStore> store, LowRanks changes)
    : StoreDecorator(std::move(store)), changes_(std::move(changes)) {
  std::vector<std::string> misfits;
  for (const auto& [layer, change] : changes_) {
    const auto shape = base().shape(layer + std::string(kWeight));
    if (fits(change, shape)) continue;
    misfits.push_back(
        str(in_quotes(layer), shape.empty() ? " (no such layer)" : " of shape " + shape_text(shape)));
  }
  if (!misfits.empty()) {
    throw Error(Kind::kCheckpoint, str("the LoRA does not fit this model; layers: ", list_text(misfits, 5)));
  }
}

void AdaptedStore::read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full,
                             std::span<const Range> rows, std::span<const Range> cols) const {
  const c10::InferenceMode no_grad;
  std::vector<std::pair<const LowRank*, RawPiece>> changes;
  for (auto& piece : base().pieces(name)) {
    if (!piece.name.ends_with(kWeight)) continue;
    const auto found =
        changes_.find(std::string_view(piece.name).substr(0, piece.name.size() - kWeight.size()));
    if (found != changes_.end()) changes.emplace_back(&found->second, std::move(piece));
  }
  if (changes.empty() || out.is_meta() || full.size() != 2)
    return base().read_into(out, name, full, rows, cols);
  const auto type = out.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor wide = type == out.scalar_type() ? out : at::empty(out.sizes(), out.options().dtype(type));
  base().read_into(wide, name, full, rows, cols);
  const Range all_rows{0, full[0]}, all_cols{0, full[1]};
  for (const auto& [change, piece] : changes) {
    add(wide, *change, piece, rows.empty() ? std::span(&all_rows, 1) : rows,
        cols.empty() ? std::span(&all_cols, 1) : cols);
  }
  if (!wide.is_same(out)) out.copy_(wide);
}

}  // namespace atelier::weights
